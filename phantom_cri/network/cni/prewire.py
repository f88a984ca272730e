"""Whether a namespace can be attached before its pod is known."""

from __future__ import annotations

from phantom_cri.config import Prewire
from phantom_cri.network.cni.capabilities import OF_EVERY_POD
from phantom_cri.network.cni.conflist import Network

INDIFFERENT = frozenset(
    {
        *("bridge", "ptp", "macvlan", "ipvlan", "vlan", "dummy", "loopback"),
        "host-local",
        *("portmap", "bandwidth", "tuning", "firewall", "sbr", "vrf"),
    }
)
"""Plugins of containernetworking that do the same for every pod, except for capability arguments.

Not included: `static` and `host-device`, which have only one address or device; `dhcp`, which may send the
pod's name; and those of others, which usually query the API server for the pod named in CNI_ARGS.
"""


def unavailable_reason(mode: Prewire, network: Network) -> str:
    """Why the pod has to be known first; "" if it need not be."""
    if mode == "never":
        return "network.cni.prewire is never"
    if mode == "always":
        return ""
    for plugin in network.plugins:
        for kind in (plugin.type, plugin.delegate):
            if kind and kind not in INDIFFERENT:
                return f"plugin {kind!r} may depend on the pod"
        depends_on = sorted(plugin.capabilities & OF_EVERY_POD)
        if depends_on:
            return f"plugin {plugin.type!r} needs each pod's {depends_on[0]}"
    return ""

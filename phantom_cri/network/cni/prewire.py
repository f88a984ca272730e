"""Whether a namespace can be attached before anybody knows whose it will be."""

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
"""Plugins of containernetworking that do the same for every pod, but for what capabilities tell them.

Not among them: `static` and `host-device`, which have one address or device to give; `dhcp`, which may send
the pod's name; and everybody else's, which as a rule ask the API server for the pod named in CNI_ARGS.
"""


def unavailable_reason(mode: Prewire, network: Network) -> str:
    """Why the pod has to be known first, "" when it has not."""
    if mode == "never":
        return "network.cni.prewire is never"
    if mode == "always":
        return ""
    for plugin in network.plugins:
        for kind in (plugin.type, plugin.delegate):
            if kind and kind not in INDIFFERENT:
                return f"plugin {kind!r} may do something else for each pod"
        told = sorted(plugin.capabilities & OF_EVERY_POD)
        if told:
            return f"plugin {plugin.type!r} is told each pod's {told[0]}"
    return ""

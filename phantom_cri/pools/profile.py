"""The properties that a fragment gets at its start and cannot change later: the key of a pool."""

from __future__ import annotations

from collections.abc import Iterable

from phantom_cri.codec import Record
from phantom_cri.model import NamespaceOptions


class Profile(Record, frozen=True):
    """The namespaces that a fragment shares with the host.

    Everything else (hostname, mounts, environment, DNS, sysctls, cgroup, labels, security context) is set at
    the claim or later.
    """

    name: str
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False

    def fits(self, namespaces: NamespaceOptions) -> bool:
        own_ids = namespaces.user == "pod"  # different for every pod, so never prepared
        return self.key() == namespace_key(namespaces) and not own_ids

    def key(self) -> tuple[bool, bool, bool]:
        return (self.host_network, self.host_pid, self.host_ipc)


def namespace_key(namespaces: NamespaceOptions) -> tuple[bool, bool, bool]:
    """Which of network, pid and ipc namespace the pod shares with the host."""
    return (namespaces.network == "node", namespaces.pid == "node", namespaces.ipc == "node")


def choose(profiles: Iterable[Profile], namespaces: NamespaceOptions) -> Profile | None:
    """The first profile that fits, or None: the pod is then cold-started."""
    return next((profile for profile in profiles if profile.fits(namespaces)), None)


def misfit_reason(namespaces: NamespaceOptions) -> str:
    """Why no pool fits, as a metric label: `user_namespace`, `host_network+host_ipc`, or `no_pool`."""
    if namespaces.user == "pod":
        return "user_namespace"
    names = ("host_network", "host_pid", "host_ipc")
    return "+".join(n for n, host in zip(names, namespace_key(namespaces), strict=True) if host) or "no_pool"

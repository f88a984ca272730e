"""Plans that a fragment runs on itself: at its start, and when a pod claims it."""

from __future__ import annotations

from collections.abc import Mapping

from phantom_cri.model import SelinuxLabels
from phantom_cri.plans import constants
from phantom_cri.plans.container_plan import entering
from phantom_cri.plans.devices import dev_block
from phantom_cri.plans.op import Op
from phantom_cri.plans.ops import FileLabel, Hostname, JoinNs, Netlink, Sysctl, UserNamespace
from phantom_cri.plans.plan import Block, Plan
from phantom_cri.plans.spec import PodIds
from phantom_cri.plans.standard import FRAGMENT_SHM, template_mounts

OOM_SCORE = -998
"""Of a fragment, as containerd's pause process: the OOM killer prefers any other process."""

_PING_GROUPS = "net/ipv4/ping_group_range"

POD_SYSCTLS = {"net/ipv4/ip_unprivileged_port_start": "0", _PING_GROUPS: "0 2147483647"}
"""Defaults of every pod with its own network namespace, as in containerd 2."""

_NO_ROUTER_ADVERTISEMENTS = ("net/ipv6/conf/default/accept_ra", "net/ipv6/conf/eth0/accept_ra")
"""Otherwise any pod on the bridge could configure addresses and routes of its neighbours (RFC 6104)."""


OWNED = constants.CLONE_NEWNET | constants.CLONE_NEWIPC | constants.CLONE_NEWUTS
"""Namespaces owned by the pod's user namespace; each container has its own mount and cgroup namespaces."""


def spawn_plan(
    netlink: bytes = b"",
    procs: int = 0,
    *,
    own_network: bool | None = None,
    ipv6: bool = False,
    template: bool = False,
    ids: PodIds | None = None,
) -> Plan:
    """The first plan of a fragment: joins its cgroups (donated "procs0"…), sets OOM score and network.

    `netlink`: rtnetlink requests to send in its network namespace; `own_network`: set the pod sysctls of a
    network namespace, by default if there are requests; `ipv6`: it has IPv6; `template`: prepare /dev and
    /sys of the first container; `ids`: of the pod's user namespace, if it was created before.
    """
    own = bool(netlink) if own_network is None else own_network
    parts: list[Op | Block] = []
    if ipv6:
        parts += [Sysctl(path, "0") for path in _NO_ROUTER_ADVERTISEMENTS]
    if netlink:
        parts.append(Netlink(netlink))
    if own:
        sysctls = POD_SYSCTLS
        if ids:  # sysctls written by the host's root take the host's ids
            sysctls = POD_SYSCTLS | {_PING_GROUPS: f"{ids.gid} {ids.gid + ids.gid_count - 1}"}
        parts += [Sysctl(path, value) for path, value in sysctls.items()]
    if template:
        parts += [*template_mounts(procs), dev_block(())]
    donated = tuple(f"procs{index}" for index in range(procs))
    return Plan(parts=(entering(OOM_SCORE, tuple(range(procs))), *parts), donated=donated)


def user_namespace_plan(ids: PodIds) -> Plan:
    """Run before the birth plan, in a fragment started in the host's network, ipc and uts namespaces."""
    return Plan(parts=(UserNamespace(ids.uid, ids.uid_count, ids.gid, ids.gid_count, OWNED),))


def join_plan(nstypes: Mapping[str, int]) -> Plan:
    """For a fragment that is to live in namespaces that are there: CLONE_NEW* by the name of their fds."""
    names = tuple(nstypes)
    return Plan(parts=tuple(JoinNs(names.index(name), nstypes[name]) for name in names), donated=names)


def claim_plan(hostname: str | None, sysctls: Mapping[str, str], labels: SelinuxLabels | None = None) -> Plan:
    """Sets a pod's identity. `hostname` None: the host's, as it shares that uts namespace.

    sysctls: values by path below /proc/sys, only those of the pod's own namespaces.
    """
    parts: list[Op] = []
    if hostname is not None:
        parts.append(Hostname(hostname))
    parts += [Sysctl(path, value) for path, value in sysctls.items()]
    if labels:
        parts.append(FileLabel(FRAGMENT_SHM, labels.mount))
    return Plan(parts=tuple(parts))

"""Plans that a fragment runs on itself: when it is started, and when a pod claims it."""

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
"""Of a fragment: the kernel shall rather take anything else, as containerd has it for its pause process."""

_PING_GROUPS = "net/ipv4/ping_group_range"

POD_SYSCTLS = {"net/ipv4/ip_unprivileged_port_start": "0", _PING_GROUPS: "0 2147483647"}
"""What every pod with a network of its own gets unless it says otherwise, as with containerd 2."""

_NO_ROUTER_ADVERTISEMENTS = ("net/ipv6/conf/default/accept_ra", "net/ipv6/conf/eth0/accept_ra")
"""Else any pod on the bridge could give its neighbours addresses and routes (RFC 6104)."""


OWNED = constants.CLONE_NEWNET | constants.CLONE_NEWIPC | constants.CLONE_NEWUTS
"""What belongs to the pod's user namespace; mount and cgroup namespaces are each container's."""


def spawn_plan(
    netlink: bytes = b"",
    procs: int = 0,
    *,
    own_network: bool | None = None,
    ipv6: bool = False,
    template: bool = False,
    ids: PodIds | None = None,
) -> Plan:
    """Of a warm fragment: into its cgroups (donated "procs0"…), its OOM score, its network.

    `netlink`: rtnetlink requests to send from inside; `own_network`: whether the pod sysctls of a network
    namespace apply, by default where there are requests; `ipv6`: it has IPv6; `template`: the first
    container's /dev and /sys are made ready; `ids`: of the pod's user namespace, when it was made before.
    """
    own = bool(netlink) if own_network is None else own_network
    parts: list[Op | Block] = []
    if ipv6:
        parts += [Sysctl(path, "0") for path in _NO_ROUTER_ADVERTISEMENTS]
    if netlink:
        parts.append(Netlink(netlink))
    if own:
        sysctls = POD_SYSCTLS
        if ids:  # the host's root counts in the host's groups
            sysctls = POD_SYSCTLS | {_PING_GROUPS: f"{ids.gid} {ids.gid + ids.gid_count - 1}"}
        parts += [Sysctl(path, value) for path, value in sysctls.items()]
    if template:
        parts += [*template_mounts(procs), dev_block(())]
    donated = tuple(f"procs{index}" for index in range(procs))
    return Plan(parts=(entering(OOM_SCORE, tuple(range(procs))), *parts), donated=donated)


def user_namespace_plan(ids: PodIds) -> Plan:
    """First of all for a fragment that was started in the host's network, ipc and uts namespaces."""
    return Plan(parts=(UserNamespace(ids.uid, ids.uid_count, ids.gid, ids.gid_count, OWNED),))


def join_plan(nstypes: Mapping[str, int]) -> Plan:
    """For a fragment that is to live in namespaces that are there: CLONE_NEW* by the name of their fds."""
    names = tuple(nstypes)
    return Plan(parts=tuple(JoinNs(names.index(name), nstypes[name]) for name in names), donated=names)


def claim_plan(hostname: str | None, sysctls: Mapping[str, str], labels: SelinuxLabels | None = None) -> Plan:
    """A pod's identity. `hostname` None: the host's, whose uts namespace it shares.

    sysctls: values by path below /proc/sys, each of a namespace that is the pod's own.
    """
    parts: list[Op] = []
    if hostname is not None:
        parts.append(Hostname(hostname))
    parts += [Sysctl(path, value) for path, value in sysctls.items()]
    if labels:
        parts.append(FileLabel(FRAGMENT_SHM, labels.mount))
    return Plan(parts=tuple(parts))

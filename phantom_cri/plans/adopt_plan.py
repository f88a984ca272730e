"""Plans that a fragment runs on itself: at its birth, and when a pod claims it."""

from __future__ import annotations

from collections.abc import Mapping

from phantom_cri.errors import InvalidArgument
from phantom_cri.model import NamespaceOptions, SelinuxLabels
from phantom_cri.plans.container_plan import entering
from phantom_cri.plans.op import Op
from phantom_cri.plans.ops import FileLabel, Hostname, Netlink, Sysctl
from phantom_cri.plans.plan import Block, Plan
from phantom_cri.plans.standard import FRAGMENT_SHM, template_mounts
from phantom_cri.requests.devices import dev_block
from phantom_cri.requests.user_namespace import PodIds

OOM_SCORE = -998
"""Of a fragment: the kernel shall rather take anything else, as containerd has it for its pause process."""

_PING_GROUPS = "net/ipv4/ping_group_range"

POD_SYSCTLS = {"net/ipv4/ip_unprivileged_port_start": "0", _PING_GROUPS: "0 2147483647"}
"""What every pod with a network of its own gets unless it says otherwise, as with containerd 2."""

_HOSTNAME_MAX = 64  # __NEW_UTS_LEN (linux/utsname.h)

_IPC = frozenset(
    f"kernel/{name}"
    for name in (
        *("sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced", "shm_next_id"),
        *("msgmax", "msgmnb", "msgmni", "msg_next_id"),
    )
)
"""The IPC sysctls that Kubernetes knows as namespaced (ipc/ipc_sysctl.c); fs/mqueue beside them."""


_NO_ROUTER_ADVERTISEMENTS = ("net/ipv6/conf/default/accept_ra", "net/ipv6/conf/eth0/accept_ra")
"""Else any pod on the bridge could give its neighbours addresses and routes (RFC 6104)."""


def birth_plan(
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


def claim_plan(
    hostname: str | None,
    sysctls: Mapping[str, str],
    namespaces: NamespaceOptions | None = None,
    labels: SelinuxLabels | None = None,
) -> Plan:
    """A pod's identity. `hostname` None: the host's, whose uts namespace it shares.

    Raises InvalidArgument naming the field and the value.
    """
    parts: list[Op] = []
    if hostname is not None:
        parts.append(Hostname(checked_hostname(hostname)))
    for path, value in checked_sysctls(sysctls, namespaces or NamespaceOptions()).items():
        parts.append(Sysctl(path, value))
    if labels:
        parts.append(FileLabel(FRAGMENT_SHM, labels.mount))
    return Plan(parts=tuple(parts))


def checked_hostname(hostname: str) -> str:
    length = len(hostname.encode("utf-8", "surrogateescape"))
    if not hostname or length > _HOSTNAME_MAX or "\0" in hostname or "\n" in hostname:
        raise InvalidArgument(f"hostname: {hostname!r} is not 1 to {_HOSTNAME_MAX} bytes long, or no name")
    return hostname


def checked_sysctls(sysctls: Mapping[str, str], namespaces: NamespaceOptions) -> dict[str, str]:
    """{path below /proc/sys: value}. Raises InvalidArgument naming a sysctl that is not the pod's own."""
    found = {}
    for name, value in sysctls.items():
        path = sysctl_path(name)
        if path in _IPC or path.startswith("fs/mqueue/"):
            if namespaces.ipc == "node":
                raise InvalidArgument(f"sysctls: {name!r} is not allowed with the host's ipc namespace")
        elif path.startswith("net/"):
            if namespaces.network == "node":
                raise InvalidArgument(f"sysctls: {name!r} is not allowed with the host's network")
        else:
            raise InvalidArgument(f"sysctls: {name!r} is not namespaced: it would change the whole node")
        if "\0" in value:
            raise InvalidArgument(f"sysctls: the value of {name!r} has a NUL byte")
        found[path] = value
    return found


def sysctl_path(name: str) -> str:
    """`net.ipv4.conf.eth0/1.forwarding` → `net/ipv4/conf/eth0.1/forwarding`.

    The first separator says which of the two there are; the other one then stands for itself in the other
    spelling, as in sysctl.d(5). Raises InvalidArgument when the name leads elsewhere.
    """
    first = next((letter for letter in name if letter in "./"), ".")
    path = name if first == "/" else name.translate(str.maketrans("./", "/."))
    if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise InvalidArgument(f"sysctls: {name!r} is not the name of a sysctl")
    return path

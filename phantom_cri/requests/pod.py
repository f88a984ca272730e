"""A pod's identity as a request gives it: host name and sysctls, checked."""

from __future__ import annotations

from collections.abc import Mapping

from phantom_cri.errors import InvalidArgument
from phantom_cri.model import NamespaceOptions

_HOSTNAME_MAX = 64  # __NEW_UTS_LEN (linux/utsname.h)

_IPC = frozenset(
    f"kernel/{name}"
    for name in (
        *("sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced", "shm_next_id"),
        *("msgmax", "msgmnb", "msgmni", "msg_next_id"),
    )
)
"""The IPC sysctls that Kubernetes knows as namespaced (ipc/ipc_sysctl.c); fs/mqueue beside them."""


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

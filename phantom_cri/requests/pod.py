"""A pod's request, checked: its namespaces, and its identity as host name, DNS settings and sysctls."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from phantom_cri.errors import InvalidArgument
from phantom_cri.model import DnsConfig, NamespaceOptions, SandboxConfig
from phantom_cri.requests.user_namespace import check_pod_user

_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
"""A node's name in Linux: at most 64 characters (uname(2)), letters, digits, dots and dashes (RFC 1123)."""

_WORD = re.compile(r"[!-~]+")

_IPC = frozenset(
    f"kernel/{name}"
    for name in (
        *("sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced", "shm_next_id"),
        *("msgmax", "msgmnb", "msgmni", "msg_next_id"),
    )
)
"""The IPC sysctls that Kubernetes knows as namespaced (ipc/ipc_sysctl.c), without fs/mqueue."""


def check_pod(config: SandboxConfig) -> None:
    """Raises InvalidArgument naming field and value; independent of the node."""
    _check_namespaces(config.security.namespaces)
    check_pod_user(config.security.namespaces)
    checked_sysctls(config.sysctls, config.security.namespaces)
    if config.hostname:
        check_hostname(config.hostname)
    if config.dns is not None:
        check_dns(config.dns)


def _check_namespaces(asked: NamespaceOptions) -> None:
    for field, mode in (("network", asked.network), ("ipc", asked.ipc)):
        if mode not in ("pod", "node"):
            raise InvalidArgument(f"namespace_options.{field}: a pod takes POD or NODE, not {mode.upper()}")
    if asked.pid == "target":
        raise InvalidArgument("namespace_options.pid: TARGET is for containers, not for a pod")


def check_hostname(hostname: str) -> None:
    """Raises InvalidArgument: the name is written to lines of /etc/hosts and /etc/hostname."""
    if not _HOSTNAME.fullmatch(hostname):
        raise InvalidArgument(f"hostname: {hostname!r} is not a host name of at most 64 characters")


def check_dns(dns: DnsConfig) -> None:
    """Values are written to lines of resolv.conf, where white space could inject another line.

    Raises InvalidArgument naming the field and the value.
    """
    for server in dns.servers:
        try:
            ipaddress.ip_address(server)
        except ValueError:
            raise InvalidArgument(f"dns_config.servers: {server!r} is not an IP address") from None
    for field, words in (("servers", dns.servers), ("searches", dns.searches), ("options", dns.options)):
        for word in words:
            if not _WORD.fullmatch(word):
                raise InvalidArgument(f"dns_config.{field}: {word!r} is not one word of printable ASCII")


def checked_sysctls(sysctls: Mapping[str, str], namespaces: NamespaceOptions) -> dict[str, str]:
    """{path below /proc/sys: value}. Raises InvalidArgument naming a sysctl that would change the host."""
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

    The first separator decides whether the name uses dots or slashes; the other character is then part of a
    component, as in sysctl.d(5). Raises InvalidArgument if the name leaves /proc/sys.
    """
    first = next((letter for letter in name if letter in "./"), ".")
    path = name if first == "/" else name.translate(str.maketrans("./", "/."))
    if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise InvalidArgument(f"sysctls: {name!r} is not the name of a sysctl")
    return path

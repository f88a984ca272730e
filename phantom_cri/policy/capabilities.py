"""Capabilities by name and as bit masks, and the sets for a container's request."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from phantom_cri.errors import FailedPrecondition
from phantom_cri.model import Capabilities, CapabilitySets, ContainerSecurity

# In the order of their numbers: include/uapi/linux/capability.h
NAMES: tuple[str, ...] = (
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
)
NUMBERS = {name: number for number, name in enumerate(NAMES)}
ALL = "ALL"


def normalise(name: str) -> str:
    """`cap_net_raw` → `NET_RAW`; KeyError for a name that no kernel has."""
    plain = name.upper().removeprefix("CAP_")
    return NAMES[NUMBERS[plain]]


def is_capability(name: str) -> bool:
    return name.upper().removeprefix("CAP_") in NUMBERS


def mask_of(names: Iterable[str]) -> int:
    return sum(1 << NUMBERS[name] for name in set(names))


@lru_cache(maxsize=64)
def names_in(mask: int) -> frozenset[str]:
    return frozenset(name for number, name in enumerate(NAMES) if mask >> number & 1)


@lru_cache(maxsize=1)
def grantable() -> int:
    """The capabilities that this process can grant: its own bounding set, limited to those of the kernel.

    A bounding set can only shrink, and the daemon does not change it, so it is read once.
    """
    status = Path("/proc/self/status").read_text()
    match = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    if match is None:
        raise FailedPrecondition("capabilities: /proc/self/status has no CapBnd line")
    return int(match[1], 16)


@lru_cache(maxsize=1)
def known_to_kernel() -> int:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    return (1 << (last + 1)) - 1


def capability_sets(security: ContainerSecurity, default: frozenset[str]) -> CapabilitySets:
    """CRI's rules: ALL first, then added ones, then dropped ones; privileged containers get all.

    Inheritable stays empty (CVE-2022-24769) except for ambient ones, which require it. Names unknown to the
    kernel have no effect, as in containerd: a pod that drops a newer kernel's capability also runs on an
    older one. Raises FailedPrecondition for a capability that this node cannot grant.
    """
    wished = security.capabilities
    ambient = _masks(wished.add_ambient)
    if _has_all(wished.add_ambient):
        ambient |= known_to_kernel() & grantable()
    if security.privileged:
        granted = known_to_kernel()
    else:
        added, dropped = _masks(wished.add), _masks(wished.drop)
        granted = known_to_kernel() if _has_all(wished.add) else mask_of(default)
        if _has_all(wished.drop):
            granted = 0
        granted = (granted | added | ambient) & ~dropped
        ambient &= ~dropped
        _require((added | ambient) & ~dropped)
    granted &= grantable()
    return CapabilitySets(
        bounding=granted,
        effective=granted,
        permitted=granted,
        inheritable=ambient & granted,
        ambient=ambient & granted,
    )


def unknown_names(wished: Capabilities) -> tuple[str, ...]:
    """Names in a request that are unknown to the running kernel."""
    every = (*wished.add, *wished.drop, *wished.add_ambient)
    return tuple(name for name in every if not _bit(name) and not _has_all((name,)))


def _masks(names: tuple[str, ...]) -> int:
    mask = 0
    for name in names:
        mask |= _bit(name)
    return mask


def _bit(name: str) -> int:
    """0 for a name unknown to the running kernel, such as one of a newer kernel."""
    return 1 << NUMBERS[normalise(name)] & known_to_kernel() if is_capability(name) else 0


def _has_all(names: tuple[str, ...]) -> bool:
    return any(name.upper() in (ALL, f"CAP_{ALL}") for name in names)


def _require(asked: int) -> None:
    lacking = asked & ~grantable()
    if lacking:
        names = ", ".join(sorted(names_in(lacking)))
        raise FailedPrecondition(
            f"security.capabilities.add {names}: not held on this node, so it cannot be given"
        )

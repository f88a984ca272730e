"""systemd units for pods and containers: names, cgroup paths, limits as properties. Pure.

Sources: systemd.slice(5), systemd.resource-control(5), "Control Group APIs and Delegation" (systemd.io).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from phantom_cri.cgroups.limits import Setting
from phantom_cri.errors import InvalidArgument

_SLICE = re.compile(r"[A-Za-z0-9:_.\\]+(?:-[A-Za-z0-9:_.\\]+)*\.slice")
_LONGEST = 255  # of a unit's name (UNIT_NAME_MAX)
_NO_LIMIT = (1 << 64) - 1
_SECOND_US = 1_000_000
# systemd stores a unit's quota as whole percents, rounded towards zero.
_PERCENT_US = _SECOND_US // 100
_PERIOD_US = 100_000


class Property(NamedTuple):
    """A property of a unit: its name, D-Bus signature and value."""

    name: str
    signature: str
    value: object


def slice_of(cgroup_parent: str) -> str:
    """The slice's unit name from a path like `/a.slice/a-b.slice`, or from the name alone.

    Raises InvalidArgument.
    """
    name = cgroup_parent.rstrip("/").rpartition("/")[2]
    if len(name) > _LONGEST or not _SLICE.fullmatch(name):
        raise InvalidArgument(f"cgroup parent {cgroup_parent!r}: want a slice, e.g. /a.slice/a-b.slice")
    return name


def slice_path(name: str) -> str:
    """The cgroup path of a slice: `a-b.slice` → `/a.slice/a-b.slice`."""
    parts = name.removesuffix(".slice").split("-")
    return "".join(f"/{'-'.join(parts[:depth])}.slice" for depth in range(1, len(parts) + 1))


def properties(settings: Iterable[Setting]) -> list[Property]:
    """The limits as unit properties, so that systemd does not revert them when it applies the unit again.

    Limits without a property (huge pages, io.max by numbers) are in files that systemd does not write.
    """
    found: dict[str, Property] = {}
    for setting in settings:
        for one in _properties(setting.file, setting.value):
            found[one.name] = one
    return list(found.values())


_NUMBERS = {
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.max": "MemoryMax",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
    "cpu.weight": "CPUWeight",
}
_SETS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}


def _properties(file: str, value: str) -> list[Property]:
    if file in _NUMBERS:
        return [Property(_NUMBERS[file], "t", _number(value))]
    if file in _SETS:
        return [Property(_SETS[file], "ay", bit_mask(value))]
    if file == "io.weight" and (weight := value.removeprefix("default ")).isdecimal():
        return [Property("IOWeight", "t", int(weight))]
    if file == "cpu.max":
        return _cpu_quota(value)
    return []


def _number(value: str) -> int:
    return _NO_LIMIT if value == "max" else min(int(value), _NO_LIMIT)


def _cpu_quota(value: str) -> list[Property]:
    quota, _, given = value.partition(" ")
    period = int(given or _PERIOD_US)
    share = _NO_LIMIT
    if quota.isdecimal():
        share = -(-int(quota) * _SECOND_US // period // _PERCENT_US) * _PERCENT_US
    return [Property("CPUQuotaPeriodUSec", "t", period), Property("CPUQuotaPerSecUSec", "t", share)]


def bit_mask(listed: str) -> bytes:
    """`0-1,9` as systemd encodes sets of CPUs and memory nodes: bit n of the whole, bytes from the lowest."""
    bits = 0
    for part in filter(None, listed.strip().split(",")):
        low, _, high = part.partition("-")
        for number in range(int(low), int(high or low) + 1):
            bits |= 1 << number
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")

"""`linux.resources.unified`: cgroup v2 files by name, and which values they accept. Pure.

Only files that limit or protect are accepted. `cgroup.*` would move processes or change the tree, and
`memory.reclaim` or `*.pressure` trigger an action instead of setting a value.
Source: Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from phantom_cri.errors import InvalidArgument

FIELD = "linux.resources.unified"

_BYTES = r"max|\d{1,20}"
_ON_OFF = r"[01]"
_PERCENT = r"max|\d{1,3}(?:\.\d{1,2})?"
_CPUSET = r"[0-9,\-\s]*"
_DEVICE = r"\d{1,10}:\d{1,10}"
_NAMED_LIMITS = r"\S+(?: \w+=(?:max|\d+))+"

_VALUES = {
    "cpu.idle": _ON_OFF,
    "cpu.max": r"(?:max|\d{1,14})(?: \d{1,7})?",
    "cpu.max.burst": r"\d{1,14}",
    "cpu.uclamp.max": _PERCENT,
    "cpu.uclamp.min": _PERCENT,
    "cpu.weight": r"\d{1,5}",
    "cpu.weight.nice": r"-?\d{1,2}",
    "cpuset.cpus": _CPUSET,
    "cpuset.cpus.exclusive": _CPUSET,
    "cpuset.cpus.partition": r"member|root|isolated",
    "cpuset.mems": _CPUSET,
    "dmem.low": _NAMED_LIMITS,
    "dmem.max": _NAMED_LIMITS,
    "dmem.min": _NAMED_LIMITS,
    "io.bfq.weight": rf"(?:default )?\d{{1,5}}|{_DEVICE} (?:default|\d{{1,5}})",
    "io.latency": rf"{_DEVICE} target=\d+",
    "io.max": rf"{_DEVICE}(?: (?:rbps|wbps|riops|wiops)=(?:max|\d{{1,20}}))+",
    "io.prio.class": r"no-change|promote-to-rt|restrict-to-be|idle|none-to-rt",
    "io.weight": rf"(?:default )?\d{{1,5}}|{_DEVICE} (?:default|\d{{1,5}})",
    "memory.high": _BYTES,
    "memory.low": _BYTES,
    "memory.max": _BYTES,
    "memory.min": _BYTES,
    "memory.oom.group": _ON_OFF,
    "memory.swap.high": _BYTES,
    "memory.swap.max": _BYTES,
    "memory.zswap.max": _BYTES,
    "memory.zswap.writeback": _ON_OFF,
    "misc.max": r"\S+ (?:max|\d+)",
    "pids.max": r"max|\d{1,20}",
    "rdma.max": _NAMED_LIMITS,
}
_PATTERNS = {key: re.compile(pattern, re.ASCII) for key, pattern in _VALUES.items()}
_HUGETLB = re.compile(r"hugetlb\.[1-9]\d{0,6}(?:KB|MB|GB)\.(?:rsvd\.)?max", re.ASCII)
_HUGETLB_VALUE = re.compile(_BYTES, re.ASCII)

# Lowest and highest values, where the pattern is wider.
_RANGES = {"cpu.weight": (1, 10_000), "cpu.weight.nice": (-20, 19)}
# Each line of these is for one device or resource; the kernel accepts one per write.
_ONE_LINE_A_WRITE = ("io.", "rdma.", "misc.", "dmem.")


def check_unified(key: str, value: str, controllers: frozenset[str]) -> str:
    """The key's controller. Raises InvalidArgument naming key and value."""
    pattern = _HUGETLB_VALUE if _HUGETLB.fullmatch(key) else _PATTERNS.get(key)
    if pattern is None:
        raise InvalidArgument(f"{FIELD}[{key!r}]: not a limit of cgroup v2, e.g. memory.high or io.max")
    controller = key.partition(".")[0]
    if controller not in controllers:
        have = ", ".join(sorted(controllers)) or "none"
        raise InvalidArgument(f"{FIELD}[{key!r}]: no such controller here (there are: {have})")
    for line in lines(key, value) or [""]:
        if not pattern.fullmatch(line):
            raise InvalidArgument(f"{FIELD}[{key!r}] {line!r}: not a value of this file")
    if (bounds := _RANGES.get(key)) and not bounds[0] <= int(value) <= bounds[1]:
        raise InvalidArgument(f"{FIELD}[{key!r}] {value!r}: not in {bounds[0]}…{bounds[1]}")
    return controller


def lines(key: str, value: str) -> list[str]:
    """What to write, one write(2) each."""
    value = value.removesuffix("\n")
    return value.splitlines() if key.startswith(_ONE_LINE_A_WRITE) else [value]


def devices(values: Iterable[tuple[str, str]]) -> set[str]:
    """`MAJOR:MINOR` of the block devices in (key, value) pairs."""
    found = set()
    for key, value in values:
        if key.startswith("io."):
            found |= {line.partition(" ")[0] for line in lines(key, value) if ":" in line.partition(" ")[0]}
    return found


def restored(key: str, new: str, old: str) -> str:
    """`old`, and defaults for the devices that only `new` names: the kernel keeps limits not mentioned."""
    if not key.startswith("io."):
        return old
    before = devices([(key, old)])
    unset = {
        "io.max": "rbps=max wbps=max riops=max wiops=max",
        "io.latency": "target=0",
    }.get(key, "default")
    added = [f"{device} {unset}" for device in sorted(devices([(key, new)]) - before)]
    return "\n".join([*filter(None, [old]), *added])

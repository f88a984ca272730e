"""Checks of a request before anything is created: ranges, and resources that this host lacks.

The kernel still checks values when they are written (`settings.refusal`). Refused here are values that it
would refuse too, or would accept without applying them.
"""

from __future__ import annotations

import os
import re

from phantom_cri.cgroups import unified
from phantom_cri.cgroups.limits import UNLIMITED
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import Resources

# kernel/sched/core.c, tg_set_cfs_bandwidth: microseconds.
_SHORTEST_PERIOD, _LONGEST_PERIOD = 1_000, 1_000_000
_SHORTEST_QUOTA, _LONGEST_QUOTA = 1_000, (1 << 44) - 1

_HUGEPAGES = "/sys/kernel/mm/hugepages"
_BLOCK_DEVICES = "/sys/dev/block"
_CPU_LIST = re.compile(r"\d{1,5}(?:-\d{1,5})?(?:,\d{1,5}(?:-\d{1,5})?)*", re.ASCII)
_UNITS = ((1 << 20, "GB"), (1 << 10, "MB"), (1, "KB"))


def check_ranges(resources: Resources) -> None:
    """Raises InvalidArgument naming field and value."""
    period, quota = resources.cpu_period, resources.cpu_quota
    if period and not _SHORTEST_PERIOD <= period <= _LONGEST_PERIOD:
        raise InvalidArgument(
            f"linux.resources.cpu_period {period}: want {_SHORTEST_PERIOD} to {_LONGEST_PERIOD} microseconds"
        )
    if quota not in (0, UNLIMITED) and not _SHORTEST_QUOTA <= quota <= _LONGEST_QUOTA:
        raise InvalidArgument(
            f"linux.resources.cpu_quota {quota}: want {_SHORTEST_QUOTA} or more microseconds, or -1 for none"
        )


def check_host(resources: Resources, cpus: str, memory_nodes: str) -> None:
    """`cpus`, `memory_nodes`: the available ones, as the kernel lists them; "" if unknown.

    Raises InvalidArgument for a processor, memory node, page size or block device that this host lacks.
    """
    _check_set("cpuset_cpus", resources.cpuset_cpus, cpus)
    _check_set("cpuset_mems", resources.cpuset_mems, memory_nodes)
    sizes = page_sizes() if resources.hugepage_limits else frozenset()
    for huge in resources.hugepage_limits:
        # The kubelet's list may name sizes that the host lacks, with limit 0: nothing to enforce.
        if huge.limit and huge.page_size not in sizes:
            have = ", ".join(sorted(sizes)) or "none"
            raise InvalidArgument(
                f"linux.resources.hugepage_limits[{huge.page_size}] {huge.limit}: "
                f"no such page size here (there are: {have})"
            )
    for device in unified.devices(resources.unified.items()):
        if not os.path.exists(f"{_BLOCK_DEVICES}/{device}"):
            raise InvalidArgument(f"{unified.FIELD}: block device {device} does not exist")


def page_sizes(folder: str = _HUGEPAGES) -> frozenset[str]:
    """The host's sizes of huge pages as the cgroup files spell them: `2MB`, `1GB`."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    kilobytes = [int(name.removeprefix("hugepages-").removesuffix("kB")) for name in names]
    return frozenset(_page_size(size) for size in kilobytes)


def _page_size(kilobytes: int) -> str:
    """mm/hugetlb_cgroup.c, mem_fmt."""
    factor, unit = next((factor, unit) for factor, unit in _UNITS if kilobytes >= factor)
    return f"{kilobytes // factor}{unit}"


def _check_set(field: str, value: str, there: str) -> None:
    if not value:
        return
    if not _CPU_LIST.fullmatch(value):
        raise InvalidArgument(f"linux.resources.{field} {value!r}: want a list like 0-2,7")
    ranges = _ranges(value)
    if any(low > high for low, high in ranges):
        raise InvalidArgument(f"linux.resources.{field} {value!r}: a range runs backwards")
    known = {number for low, high in _ranges(there) for number in range(low, high + 1)} if there else None
    if known is not None and not {n for low, high in ranges for n in range(low, high + 1)} <= known:
        raise InvalidArgument(f"linux.resources.{field} {value!r}: this host has {there}")


def _ranges(listed: str) -> list[tuple[int, int]]:
    pairs = (part.partition("-") for part in listed.split(","))
    return [(int(low), int(high or low)) for low, _, high in pairs]

"""Reads the resource usage of one cgroup: from v2's single folder, or from v1's folder in each hierarchy.

Every file is one open, one read and one close relative to the hierarchy's root; some 8 µs each. A number that
the kernel does not have (an older kernel, or a disabled controller) stays None, not 0.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from functools import cache

from phantom_cri.cgroups import reading
from phantom_cri.cgroups.tree import Tree
from phantom_cri.usage import CgroupUsage, CpuUsage, DeviceIo, IoUsage, MemoryUsage, Stalls, TaskUsage

_MICROSECOND = 1000


def v2_usage(tree: Tree, name: str, controllers: frozenset[str], detailed: bool) -> CgroupUsage:
    """Raises OSError: ENOENT, ENODEV for a cgroup that is gone."""
    stat = reading.flat_keyed(tree.read(name, "cpu.stat"))  # exists without the controller too
    cpu = CpuUsage(
        usage_ns=stat.get("usage_usec", 0) * _MICROSECOND,
        user_ns=stat.get("user_usec", 0) * _MICROSECOND,
        system_ns=stat.get("system_usec", 0) * _MICROSECOND,
        periods=stat.get("nr_periods", 0),
        throttled_periods=stat.get("nr_throttled", 0),
        throttled_ns=stat.get("throttled_usec", 0) * _MICROSECOND,
        stalls=_stalls(tree, name, "cpu"),
    )
    devices: tuple[DeviceIo, ...] | None = None
    if detailed and "io" in controllers:
        devices = reading.v2_io(optional(tree, name, "io.stat"))
    tasks = TaskUsage(tasks=0)
    if "pids" in controllers:
        limit = reading.limit(tree.read(name, "pids.max")) if detailed else 0
        tasks = TaskUsage(int(tree.read(name, "pids.current")), limit)
    return CgroupUsage(
        timestamp=time.time_ns(),
        cpu=cpu,
        memory=_v2_memory(tree, name, detailed) if "memory" in controllers else None,
        io=IoUsage(devices, _stalls(tree, name, "io")),
        tasks=tasks,
    )


def _v2_memory(tree: Tree, name: str, detailed: bool) -> MemoryUsage:
    stat = reading.flat_keyed(tree.read(name, "memory.stat"))
    found = reading.v2_memory(int(tree.read(name, "memory.current")), stat)
    limit = reading.limit(tree.read(name, "memory.max"))
    swap, swap_limit = optional(tree, name, "memory.swap.current"), optional(tree, name, "memory.swap.max")
    found = found._replace(
        limit=limit,
        swap=int(swap or 0),
        # v2 limits swap alone; reported as v1 does: both together, and no limit if one of them has none.
        swap_limit=_together(limit, swap_limit) if swap_limit else None,
        stalls=_stalls(tree, name, "memory"),
    )
    if not detailed:
        return found
    events = reading.flat_keyed(tree.read(name, "memory.events"))
    peak = optional(tree, name, "memory.peak")  # since Linux 5.19
    return found._replace(
        soft_limit=reading.limit(tree.read(name, "memory.low")),
        most=int(peak) if peak else None,
        limit_hits=events.get("max", 0),
        oom_kills=events.get("oom_kill", 0),
    )


def _together(memory_limit: int, swap_max: str) -> int:
    if not memory_limit or swap_max.strip() == "max":
        return 0
    return memory_limit + int(swap_max)


def v1_usage(trees: Mapping[str, Tree], unified: Tree | None, name: str, detailed: bool) -> CgroupUsage:
    """`trees` by controller; `unified` is the v2 hierarchy of a hybrid node, which has the pressure files.

    PSI is kept for cgroups of the v2 hierarchy alone (kernel/sched/psi.c, psi_task_change): none on pure v1.
    Raises OSError.
    """
    tasks = TaskUsage(tasks=0)
    if (pids := trees.get("pids")) is not None:
        limit = reading.limit(pids.read(name, "pids.max")) if detailed else 0
        tasks = TaskUsage(int(pids.read(name, "pids.current")), limit)
    memory = trees.get("memory")
    blkio = trees.get("blkio")
    return CgroupUsage(
        timestamp=time.time_ns(),
        cpu=_v1_cpu(trees, unified, name, detailed),
        memory=None if memory is None else _v1_memory(memory, unified, name, detailed),
        io=IoUsage(
            _v1_io(blkio, name) if detailed and blkio is not None else None,
            _stalls(unified, name, "io"),
        ),
        tasks=tasks,
    )


def _v1_cpu(trees: Mapping[str, Tree], unified: Tree | None, name: str, detailed: bool) -> CpuUsage:
    found = CpuUsage(usage_ns=0)
    if (accounting := trees.get("cpuacct")) is not None:
        found = found._replace(usage_ns=int(accounting.read(name, "cpuacct.usage")))
        if detailed:
            found = found._replace(
                user_ns=int(accounting.read(name, "cpuacct.usage_user")),
                system_ns=int(accounting.read(name, "cpuacct.usage_sys")),
            )
    if detailed and (bandwidth := trees.get("cpu")) is not None:
        stat = reading.flat_keyed(bandwidth.read(name, "cpu.stat"))
        found = found._replace(
            periods=stat.get("nr_periods", 0),
            throttled_periods=stat.get("nr_throttled", 0),
            throttled_ns=stat.get("throttled_time", 0),
        )
    return found._replace(stalls=_stalls(unified, name, "cpu"))


def _v1_memory(tree: Tree, unified: Tree | None, name: str, detailed: bool) -> MemoryUsage:
    stat = reading.flat_keyed(tree.read(name, "memory.stat"))
    found = reading.v1_memory(int(tree.read(name, "memory.usage_in_bytes")), stat)
    found = found._replace(stalls=_stalls(unified, name, "memory"))
    if not detailed:
        return found
    return found._replace(
        kernel=int(optional(tree, name, "memory.kmem.usage_in_bytes") or 0),
        soft_limit=reading.limit(tree.read(name, "memory.soft_limit_in_bytes")),
        most=int(tree.read(name, "memory.max_usage_in_bytes")),
        # If no swap may be used, the limit of both together is hit.
        limit_hits=int(tree.read(name, "memory.failcnt"))
        + int(optional(tree, name, "memory.memsw.failcnt") or 0),
        oom_kills=reading.flat_keyed(tree.read(name, "memory.oom_control")).get("oom_kill", 0),
    )


def _v1_io(tree: Tree, name: str) -> tuple[DeviceIo, ...]:
    return reading.v1_io(
        optional(tree, name, "blkio.throttle.io_service_bytes_recursive"),
        optional(tree, name, "blkio.throttle.io_serviced_recursive"),
    )


def _stalls(tree: Tree | None, name: str, resource: str) -> Stalls | None:
    return None if tree is None else reading.stalls(optional(tree, name, f"{resource}.pressure"))


def optional(tree: Tree, name: str, file: str) -> str:
    """A file's text; empty if the kernel has no such file, or refuses it (PSI disabled at boot)."""
    try:
        return tree.read(name, file)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
            return ""
        raise


@cache
def huge_page_sizes() -> tuple[str, ...]:
    """As cgroup files spell them: `2MB`, `1GB` (mm/hugetlb_cgroup.c, mem_fmt)."""
    try:
        names = os.listdir("/sys/kernel/mm/hugepages")
    except FileNotFoundError:
        return ()
    sizes = sorted(int(name.removeprefix("hugepages-").removesuffix("kB")) for name in names)
    return tuple(_spelled(size) for size in sizes)


def _spelled(kilobytes: int) -> str:
    if kilobytes >= 1 << 20:
        return f"{kilobytes >> 20}GB"
    return f"{kilobytes >> 10}MB" if kilobytes >= 1 << 10 else f"{kilobytes}KB"

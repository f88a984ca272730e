"""Usage of a pod without its own cgroup: the sum of its containers and its fragment."""

from __future__ import annotations

import time

from phantom_cri.fragments import ProcStat
from phantom_cri.usage import CgroupUsage, CpuUsage, IoUsage, MemoryUsage, TaskUsage

_NO_IO = IoUsage(None, None)


def of_process(proc_stat: ProcStat) -> CgroupUsage:
    """A single process as if it had a cgroup of its own."""
    return CgroupUsage(
        timestamp=time.time_ns(),
        cpu=CpuUsage(proc_stat.user_ns + proc_stat.system_ns, proc_stat.user_ns, proc_stat.system_ns),
        memory=MemoryUsage(
            usage=proc_stat.rss,
            working_set=proc_stat.rss,
            rss=proc_stat.rss,
            page_faults=proc_stat.page_faults,
            major_page_faults=proc_stat.major_page_faults,
        ),
        io=_NO_IO,
        tasks=TaskUsage(proc_stat.threads),
    )


def time_only(usage: CgroupUsage) -> CgroupUsage:
    """What an exited container adds to its pod: its CPU time and page faults."""
    memory = usage.memory and MemoryUsage(
        usage=0,
        working_set=0,
        page_faults=usage.memory.page_faults,
        major_page_faults=usage.memory.major_page_faults,
    )
    return usage._replace(memory=memory, tasks=TaskUsage(0))


def add(one: CgroupUsage, other: CgroupUsage) -> CgroupUsage:
    """Pressure cannot be summed (stalls may overlap), nor can limits: both are omitted."""
    return CgroupUsage(
        timestamp=max(one.timestamp, other.timestamp),
        cpu=CpuUsage(
            one.cpu.usage_ns + other.cpu.usage_ns,
            one.cpu.user_ns + other.cpu.user_ns,
            one.cpu.system_ns + other.cpu.system_ns,
        ),
        memory=_add_memory(one.memory, other.memory),
        io=_NO_IO,
        tasks=TaskUsage(one.tasks.tasks + other.tasks.tasks),
    )


def _add_memory(one: MemoryUsage | None, other: MemoryUsage | None) -> MemoryUsage | None:
    if one is None or other is None:
        return None
    return MemoryUsage(
        usage=one.usage + other.usage,
        working_set=one.working_set + other.working_set,
        rss=one.rss + other.rss,
        swap=one.swap + other.swap,
        page_faults=one.page_faults + other.page_faults,
        major_page_faults=one.major_page_faults + other.major_page_faults,
    )

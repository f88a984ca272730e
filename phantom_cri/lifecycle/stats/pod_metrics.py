"""The metrics that replace cAdvisor's: names, labels, and the source of each value.

Names and labels are cAdvisor's (its docs/storage/prometheus.md), which dashboards and alerts use. CRI only
has whole numbers (Metric.value is a UInt64Value), so seconds are rounded down. A family whose number the
kernel does not have is neither announced nor sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Literal, NamedTuple

from phantom_cri.lifecycle.stats.filesystem import Filesystem, device_name
from phantom_cri.model import SandboxRecord
from phantom_cri.usage import (
    CgroupUsage,
    ContainerUsage,
    DeviceIo,
    MemoryUsage,
    Metric,
    PodMetrics,
    PodUsage,
    Sample,
    Stalls,
)

BASE_LABELS = ("container", "id", "image", "name", "namespace", "pod")
POD_CONTAINER = "POD"
"""Value of the label `container` for a metric of the pod, as in cAdvisor."""

_SECOND = 1_000_000_000
_DEFAULT_CPU_PERIOD = 100_000  # microseconds; kernel/sched/core.c
_DEFAULT_CPU_SHARES = 1024

Values = Iterable[tuple[tuple[str, ...], int]]


class Source(NamedTuple):
    """The sources of one container's metrics."""

    usage: ContainerUsage
    cgroup: CgroupUsage
    memory: MemoryUsage
    filesystem: Filesystem


class Family(NamedTuple):
    metric: Metric
    read: Callable[[Source], Values]
    kept: Callable[[CgroupUsage], bool]  # whether the kernel has the number


def _always(cgroup: CgroupUsage) -> bool:
    return True


def _has_memory(cgroup: CgroupUsage) -> bool:
    return cgroup.memory is not None


def _has_io(cgroup: CgroupUsage) -> bool:
    return cgroup.io.devices is not None


def _family(
    name: str,
    help_text: str,
    kind: Literal["counter", "gauge"],
    read: Callable[[Source], Values],
    kept: Callable[[CgroupUsage], bool] = _always,
    labels: tuple[str, ...] = (),
) -> Family:
    return Family(Metric(f"container_{name}", help_text, kind, BASE_LABELS + labels), read, kept)


def _counter(
    name: str,
    help_text: str,
    read: Callable[[Source], int],
    kept: Callable[[CgroupUsage], bool] = _always,
) -> Family:
    return _family(name, help_text, "counter", lambda source: [((), read(source))], kept)


def _gauge(
    name: str,
    help_text: str,
    read: Callable[[Source], int],
    kept: Callable[[CgroupUsage], bool] = _always,
) -> Family:
    return _family(name, help_text, "gauge", lambda source: [((), read(source))], kept)


def _cpu() -> Iterator[Family]:
    yield _family(
        "cpu_usage_seconds_total",
        "CPU time used, in seconds.",
        "counter",
        lambda source: [(("total",), source.cgroup.cpu.usage_ns // _SECOND)],
        labels=("cpu",),
    )
    yield _counter(
        "cpu_user_seconds_total",
        "CPU time used in user mode, in seconds.",
        lambda source: source.cgroup.cpu.user_ns // _SECOND,
    )
    yield _counter(
        "cpu_system_seconds_total",
        "CPU time used in kernel mode, in seconds.",
        lambda source: source.cgroup.cpu.system_ns // _SECOND,
    )
    yield _counter(
        "cpu_cfs_periods_total",
        "Periods of the CPU quota with runnable tasks.",
        lambda source: source.cgroup.cpu.periods,
    )
    yield _counter(
        "cpu_cfs_throttled_periods_total",
        "Periods in which the CPU quota was used up.",
        lambda source: source.cgroup.cpu.throttled_periods,
    )
    yield _counter(
        "cpu_cfs_throttled_seconds_total",
        "Time spent waiting for the next period's CPU quota, in seconds.",
        lambda source: source.cgroup.cpu.throttled_ns // _SECOND,
    )


def _memory() -> Iterator[Family]:
    gauges: tuple[tuple[str, str, Callable[[MemoryUsage], int]], ...] = (
        ("memory_usage_bytes", "Memory in use, caches included.", lambda memory: memory.usage),
        (
            "memory_working_set_bytes",
            "Memory in use without inactive file cache, as used for eviction.",
            lambda memory: memory.working_set,
        ),
        ("memory_rss", "Anonymous memory.", lambda memory: memory.rss),
        ("memory_cache", "Page cache.", lambda memory: memory.cache),
        ("memory_mapped_file", "Page cache that is mapped.", lambda memory: memory.mapped_file),
        ("memory_kernel_usage", "Kernel memory.", lambda memory: memory.kernel),
        ("memory_swap", "Swap in use.", lambda memory: memory.swap),
    )
    for name, help_text, read in gauges:
        yield _gauge(name, help_text, _of_memory(read), _has_memory)
    yield _gauge(
        "memory_max_usage_bytes",
        "Highest memory use.",
        _of_memory(lambda memory: memory.most or 0),
        lambda cgroup: cgroup.memory is not None and cgroup.memory.most is not None,
    )
    yield _counter(
        "memory_failcnt",
        "Times that memory use hit the limit.",
        _of_memory(lambda memory: memory.limit_hits or 0),
        lambda cgroup: cgroup.memory is not None and cgroup.memory.limit_hits is not None,
    )
    yield _counter(
        "oom_events_total",
        "Processes killed by the OOM killer.",
        _of_memory(lambda memory: memory.oom_kills),
        _has_memory,
    )
    yield _family(
        "memory_failures_total",
        "Page faults.",
        "counter",
        _memory_failures,
        _has_memory,
        ("failure_type", "scope"),
    )


def _of_memory(read: Callable[[MemoryUsage], int]) -> Callable[[Source], int]:
    return lambda source: read(source.memory)


def _memory_failures(source: Source) -> Values:
    """The only cgroups below a container's are those of execs, which are included."""
    for scope in ("container", "hierarchy"):
        yield ("pgfault", scope), source.memory.page_faults
        yield ("pgmajfault", scope), source.memory.major_page_faults


def _io() -> Iterator[Family]:
    numbers: tuple[tuple[str, str, Callable[[DeviceIo], int]], ...] = (
        ("fs_reads_bytes_total", "Bytes read from a device.", lambda io: io.read_bytes),
        ("fs_reads_total", "Reads from a device.", lambda io: io.reads),
        ("fs_writes_bytes_total", "Bytes written to a device.", lambda io: io.write_bytes),
        ("fs_writes_total", "Writes to a device.", lambda io: io.writes),
    )
    for name, help_text, read in numbers:
        yield _family(name, help_text, "counter", _by_device(read), _has_io, ("device",))
    yield _family(
        "blkio_device_usage_total",
        "Bytes moved from and to a device.",
        "counter",
        _blkio,
        _has_io,
        ("device", "major", "minor", "operation"),
    )


def _devices(source: Source) -> tuple[DeviceIo, ...]:
    """Before the first I/O the kernel lists no device: then the writable layer's device with 0."""
    filesystem = source.filesystem
    nothing = DeviceIo(filesystem.major, filesystem.minor, 0, 0, 0, 0)
    return source.cgroup.io.devices or (nothing,)


def _by_device(read: Callable[[DeviceIo], int]) -> Callable[[Source], Values]:
    return lambda source: [((device_name(io.major, io.minor),), read(io)) for io in _devices(source)]


def _blkio(source: Source) -> Values:
    for io in _devices(source):
        place = (device_name(io.major, io.minor), str(io.major), str(io.minor))
        yield (*place, "Read"), io.read_bytes
        yield (*place, "Write"), io.write_bytes


def _filesystem() -> Iterator[Family]:
    numbers: tuple[tuple[str, str, Callable[[Source], int]], ...] = (
        (
            "fs_usage_bytes",
            "Bytes written to the writable layer.",
            lambda source: source.usage.layer.used_bytes if source.usage.layer else 0,
        ),
        ("fs_limit_bytes", "Size of the filesystem.", lambda source: source.filesystem.size),
        ("fs_inodes_total", "Inodes of the filesystem.", lambda source: source.filesystem.inodes),
        ("fs_inodes_free", "Free inodes of the filesystem.", lambda source: source.filesystem.inodes_free),
    )
    for name, help_text, read in numbers:
        yield _family(name, help_text, "gauge", _on_device(read), labels=("device",))


def _on_device(read: Callable[[Source], int]) -> Callable[[Source], Values]:
    return lambda source: [((source.filesystem.device,), read(source))]


def _huge_pages() -> Iterator[Family]:
    yield _family(
        "hugetlb_usage_bytes",
        "Huge pages in use, in bytes.",
        "gauge",
        lambda source: [((pages.page_size,), pages.used) for pages in source.cgroup.huge_pages],
        lambda cgroup: bool(cgroup.huge_pages),
        ("pagesize",),
    )
    yield _family(
        "hugetlb_max_usage_bytes",
        "Highest use of huge pages, in bytes.",
        "gauge",
        lambda source: [((pages.page_size,), pages.most or 0) for pages in source.cgroup.huge_pages],
        lambda cgroup: any(pages.most is not None for pages in cgroup.huge_pages),
        ("pagesize",),
    )


def _pressure() -> Iterator[Family]:
    stalls_of: tuple[tuple[str, Callable[[CgroupUsage], Stalls | None]], ...] = (
        ("cpu", lambda cgroup: cgroup.cpu.stalls),
        ("memory", lambda cgroup: cgroup.memory.stalls if cgroup.memory else None),
        ("io", lambda cgroup: cgroup.io.stalls),
    )
    for resource, stalls in stalls_of:
        for word, whose, index in (("waiting", "some", 0), ("stalled", "all", 1)):
            yield _counter(
                f"pressure_{resource}_{word}_seconds_total",
                f"Time in which {whose} tasks waited for {resource}, in seconds.",
                _stalled(stalls, index),
                _has_stalls(stalls),
            )


def _stalled(stalls: Callable[[CgroupUsage], Stalls | None], index: int) -> Callable[[Source], int]:
    def read(source: Source) -> int:
        found = stalls(source.cgroup)
        return 0 if found is None else found[index].total_ns // _SECOND

    return read


def _has_stalls(stalls: Callable[[CgroupUsage], Stalls | None]) -> Callable[[CgroupUsage], bool]:
    return lambda cgroup: stalls(cgroup) is not None


def _tasks() -> Iterator[Family]:
    yield _gauge("processes", "Processes.", lambda source: source.cgroup.tasks.processes or 0)
    yield _gauge("threads", "Threads.", lambda source: source.cgroup.tasks.tasks)
    yield _gauge("threads_max", "Limit of threads; 0: none.", lambda s: s.cgroup.tasks.limit)
    yield _gauge("file_descriptors", "Open files.", lambda source: source.cgroup.tasks.files or 0)
    yield _gauge("sockets", "Open sockets.", lambda source: source.cgroup.tasks.sockets or 0)
    yield _family(
        "ulimits_soft",
        "Soft limits of the first process.",
        "gauge",
        lambda source: (
            []
            if source.usage.open_files_limit is None
            else [(("max_open_files",), source.usage.open_files_limit)]
        ),
        labels=("ulimit",),
    )


def _specification() -> Iterator[Family]:
    """Metrics of the request instead of the usage."""
    yield _gauge(
        "last_seen",
        "Time of this reading, in seconds since the epoch.",
        lambda s: s.cgroup.timestamp // _SECOND,
    )
    yield _gauge(
        "start_time_seconds",
        "Start time, in seconds since the epoch.",
        lambda source: source.usage.record.started_at // _SECOND,
    )
    yield _gauge(
        "spec_cpu_period",
        "Period of the CPU quota, in microseconds.",
        lambda source: source.usage.record.resources.cpu_period or _DEFAULT_CPU_PERIOD,
    )
    yield _family(
        "spec_cpu_quota", "CPU quota, in microseconds of each period; absent without one.", "gauge", _quota
    )
    yield _gauge(
        "spec_cpu_shares",
        "CPU shares.",
        lambda source: source.usage.record.resources.cpu_shares or _DEFAULT_CPU_SHARES,
    )
    yield _gauge(
        "spec_memory_limit_bytes",
        "Memory limit; 0: none.",
        lambda source: max(0, source.usage.record.resources.memory_limit),
    )
    yield _gauge(
        "spec_memory_swap_limit_bytes",
        "Limit of memory and swap together; 0: none.",
        lambda source: source.memory.swap_limit or 0,
    )
    yield _gauge(
        "spec_memory_reservation_limit_bytes",
        "Memory protected from reclaim; 0: none.",
        lambda source: source.memory.soft_limit,
        _has_memory,
    )


def _quota(source: Source) -> Values:
    quota = source.usage.record.resources.cpu_quota
    return [((), quota)] if quota > 0 else []


FAMILIES = (
    *_cpu(),
    *_memory(),
    *_io(),
    *_filesystem(),
    *_huge_pages(),
    *_pressure(),
    *_tasks(),
    *_specification(),
)


@cache
def _network_metrics() -> tuple[tuple[Metric, str], ...]:
    """Each with its field of `InterfaceUsage`."""
    words = (("receive", "rx", "received"), ("transmit", "tx", "sent"))
    return tuple(
        (
            Metric(
                f"container_network_{direction}_{what}_total",
                f"{noun} {verb}.",
                "counter",
                (*BASE_LABELS, "interface"),
            ),
            f"{short}_{field}",
        )
        for direction, short, verb in words
        for what, field, noun in (
            ("bytes", "bytes", "Bytes"),
            ("packets", "packets", "Packets"),
            ("errors", "errors", "Errors in packets"),
            ("packets_dropped", "dropped", "Dropped packets"),
        )
    )


def announced(example: CgroupUsage) -> list[Metric]:
    """The metrics that this kernel supports, from a detailed reading of any cgroup."""
    return [family.metric for family in FAMILIES if family.kept(example)] + [
        metric for metric, _ in _network_metrics()
    ]


def samples_of(pod: PodUsage, filesystem: Filesystem) -> PodMetrics:
    """The pod's network metrics, and all others for each container."""
    return PodMetrics(
        sandbox_id=pod.record.id,
        samples=tuple(_network_samples(pod)),
        containers=tuple(
            (usage.record.id, tuple(_container_samples(pod.record, usage, usage.cgroup, filesystem)))
            for usage in pod.containers
            if usage.cgroup is not None
        ),
    )


_NO_MEMORY = MemoryUsage(0, 0)


def _container_samples(
    pod: SandboxRecord, usage: ContainerUsage, cgroup: CgroupUsage, filesystem: Filesystem
) -> Iterator[Sample]:
    source = Source(usage, cgroup, cgroup.memory or _NO_MEMORY, filesystem)
    record, metadata = usage.record, pod.config.metadata
    base = (
        record.config.metadata.name,
        record.cgroup,
        record.image_name,
        record.id,
        metadata.namespace,
        metadata.name,
    )
    for metric, read, kept in FAMILIES:
        if kept(cgroup):
            for labels, value in read(source):
                yield Sample(metric, cgroup.timestamp, base + labels, value)


def _network_samples(pod: PodUsage) -> Iterator[Sample]:
    metadata = pod.record.config.metadata
    base = (POD_CONTAINER, pod.record.cgroup_parent, "", pod.record.id, metadata.namespace, metadata.name)
    for interface in pod.interfaces:
        for metric, field in _network_metrics():
            value: int = getattr(interface, field)
            yield Sample(metric, pod.network_timestamp, (*base, interface.name), value)

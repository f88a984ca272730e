"""Resource usage of containers and pods, as read from the kernel; never stored.

Nanoseconds, bytes, counts. `None` where this node's kernel does not have the number.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from phantom_cri.model import ContainerRecord, FilesystemUsage, SandboxRecord


class Pressure(NamedTuple):
    """One line of a `*.pressure` file (Documentation/accounting/psi.rst); the averages are percent."""

    total_ns: int = 0
    avg10: float = 0.0
    avg60: float = 0.0
    avg300: float = 0.0


class Stalls(NamedTuple):
    some: Pressure
    full: Pressure


class CpuUsage(NamedTuple):
    usage_ns: int
    user_ns: int = 0
    system_ns: int = 0
    periods: int = 0  # of the quota, while there was something to run
    throttled_periods: int = 0
    throttled_ns: int = 0
    stalls: Stalls | None = None


class MemoryUsage(NamedTuple):
    usage: int
    working_set: int  # usage without inactive file cache, as the kubelet's eviction counts
    rss: int = 0
    cache: int = 0
    mapped_file: int = 0
    kernel: int = 0
    swap: int = 0
    page_faults: int = 0
    major_page_faults: int = 0
    limit: int = 0  # 0: none
    swap_limit: int | None = None  # memory and swap together, 0: none
    soft_limit: int = 0  # memory.low, or v1's soft limit
    most: int | None = None
    limit_hits: int | None = None
    oom_kills: int = 0
    stalls: Stalls | None = None


class DeviceIo(NamedTuple):
    major: int
    minor: int
    read_bytes: int
    write_bytes: int
    reads: int
    writes: int


class IoUsage(NamedTuple):
    devices: tuple[DeviceIo, ...] | None
    stalls: Stalls | None


class TaskUsage(NamedTuple):
    """`tasks` are threads, as the pids controller counts. Open files: only in detailed readings."""

    tasks: int
    limit: int = 0  # 0: none
    processes: int | None = None
    files: int | None = None
    sockets: int | None = None


class HugePages(NamedTuple):
    page_size: str  # "2MB"
    used: int
    most: int | None


class CgroupUsage(NamedTuple):
    timestamp: int
    cpu: CpuUsage
    memory: MemoryUsage | None
    io: IoUsage
    tasks: TaskUsage
    huge_pages: tuple[HugePages, ...] = ()


class InterfaceUsage(NamedTuple):
    name: str
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


class ContainerUsage(NamedTuple):
    """`cgroup` is None for a container that is not running, `layer` until it is first measured."""

    record: ContainerRecord
    cgroup: CgroupUsage | None
    nano_cores: int | None  # since an earlier reading
    layer: FilesystemUsage | None
    open_files_limit: int | None = None


class PodUsage(NamedTuple):
    """`interfaces`: the pod's own, default first, without lo; empty on the host's network."""

    record: SandboxRecord
    cgroup: CgroupUsage
    nano_cores: int | None
    network_timestamp: int
    interfaces: tuple[InterfaceUsage, ...]
    containers: tuple[ContainerUsage, ...]


class Metric(NamedTuple):
    """A family of time series; every sample has a value for each of `labels`, in order."""

    name: str
    help: str
    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...]


class Sample(NamedTuple):
    metric: Metric
    timestamp: int
    labels: tuple[str, ...]
    value: int


class PodMetrics(NamedTuple):
    sandbox_id: str
    samples: tuple[Sample, ...]
    containers: tuple[tuple[str, tuple[Sample, ...]], ...]

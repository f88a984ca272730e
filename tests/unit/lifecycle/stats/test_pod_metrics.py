from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from phantom_cri.codec import replace
from phantom_cri.lifecycle.stats.filesystem import Filesystem, device_name, filesystem_of
from phantom_cri.lifecycle.stats.pod_metrics import BASE_LABELS, announced, samples_of
from phantom_cri.model import (
    ContainerConfig,
    ContainerMetadata,
    ContainerRecord,
    FilesystemUsage,
    ImageSpec,
    Resources,
    SandboxConfig,
    SandboxMetadata,
    SandboxRecord,
)
from phantom_cri.usage import (
    CgroupUsage,
    ContainerUsage,
    CpuUsage,
    DeviceIo,
    HugePages,
    InterfaceUsage,
    IoUsage,
    MemoryUsage,
    PodUsage,
    Pressure,
    Sample,
    Stalls,
    TaskUsage,
)

PAGE = Path(__file__).parents[4] / "docs/metrics.md"
ROW = re.compile(r"^\| `(container_\w+)` \|([^|]*)\|", re.MULTILINE)

SECOND = 1_000_000_000
STALLS = Stalls(Pressure(3 * SECOND + 1), Pressure(2 * SECOND))
BARE = CgroupUsage(
    timestamp=100 * SECOND,
    cpu=CpuUsage(7_900_000_000, 5 * SECOND, 2 * SECOND, 40, 9, 3 * SECOND),
    memory=None,
    io=IoUsage(None, None),
    tasks=TaskUsage(4, 9, 2, 11, 3),
)
WHOLE = BARE._replace(
    cpu=BARE.cpu._replace(stalls=STALLS),
    memory=MemoryUsage(100, 60, rss=50, swap_limit=700, most=120, limit_hits=4, oom_kills=1, stalls=STALLS),
    io=IoUsage((DeviceIo(999, 7, 1, 2, 3, 4),), STALLS),
    huge_pages=(HugePages("2MB", 4096, 8192), HugePages("1GB", 0, 0)),
)
DISK = Filesystem("/dev/x", 999, 1, 10_000, 50, 20)
ETH0 = InterfaceUsage("eth0", 1, 2, 3, 4, 5, 6, 7, 8)
POD = SandboxRecord(
    id="pod-id",
    config=SandboxConfig(metadata=SandboxMetadata(name="web-1", namespace="shop")),
    created_at=1,
    cgroup_parent="/kubepods/pod1",
)
CONTAINER = ContainerRecord(
    id="container-id",
    sandbox_id=POD.id,
    config=ContainerConfig(metadata=ContainerMetadata(name="web"), image=ImageSpec(image="i")),
    image_id="sha256:1",
    image_ref="r",
    image_name="nginx:1",
    created_at=1,
    started_at=5 * SECOND,
    state="running",
    cgroup="/kubepods/pod1/container-id",
    resources=Resources(cpu_quota=20_000, cpu_period=50_000, cpu_shares=2, memory_limit=64),
)
LAYER = FilesystemUsage(1, "/", 777, 3)


def samples(cgroup: CgroupUsage, record: ContainerRecord = CONTAINER) -> list[Sample]:
    usage = ContainerUsage(record, cgroup, None, LAYER, 1024)
    ((container_id, found),) = samples_of(PodUsage(POD, cgroup, None, 1, (), (usage,)), DISK).containers
    assert container_id == record.id
    return list(found)


def values(cgroup: CgroupUsage, record: ContainerRecord = CONTAINER) -> dict[tuple[str, ...], int]:
    """By the name without its prefix, and the labels of its own."""
    found = {}
    for sample in samples(cgroup, record):
        labels = dict(zip(sample.metric.labels, sample.labels, strict=True))
        base = ["web", CONTAINER.cgroup, "nginx:1", CONTAINER.id, "shop", "web-1"]
        assert [labels.pop(key) for key in BASE_LABELS] == base
        key = (sample.metric.name.removeprefix("container_"), *labels.values())
        assert key not in found
        found[key] = sample.value
    return found


@pytest.mark.parametrize("cgroup", [BARE, WHOLE, WHOLE._replace(huge_pages=(HugePages("2MB", 1, None),))])
def test_what_is_announced_is_sent_and_nothing_else(cgroup: CgroupUsage) -> None:
    metrics = announced(cgroup)
    assert len({metric.name for metric in metrics}) == len(metrics)
    usage = ContainerUsage(CONTAINER, cgroup, None, LAYER, 1024)
    pod = samples_of(PodUsage(POD, cgroup, None, 1, (ETH0,), (usage,)), DISK)
    sent = {*pod.samples, *(sample for _, samples in pod.containers for sample in samples)}
    assert {sample.metric for sample in sent} == set(metrics)


def test_the_page_lists_every_metric_with_its_labels() -> None:
    written = [
        (name, tuple(re.findall(r"`(\w+)`", labels))) for name, labels in ROW.findall(PAGE.read_text())
    ]
    known = {(metric.name, metric.labels[len(BASE_LABELS) :]) for metric in announced(WHOLE)}
    assert len(written) == len(set(written)) and set(written) == known


def test_what_a_kernel_does_not_keep_is_not_announced() -> None:
    names = {metric.name for metric in announced(BARE)}
    for part in ("pressure", "hugetlb", "memory_rss", "blkio", "fs_reads", "max_usage"):
        assert not [name for name in names if part in name]
    no_peak = WHOLE._replace(memory=MemoryUsage(1, 1))
    names = {metric.name for metric in announced(no_peak)}
    assert "container_memory_max_usage_bytes" not in names and "container_memory_rss" in names


def test_values() -> None:
    found = values(WHOLE)
    device = device_name(999, 7)
    assert found[("cpu_usage_seconds_total", "total")] == 7, "whole seconds, rounded down"
    assert found[("cpu_cfs_throttled_seconds_total",)] == 3
    assert found[("pressure_memory_waiting_seconds_total",)] == 3
    assert found[("pressure_memory_stalled_seconds_total",)] == 2
    assert found[("fs_reads_bytes_total", device)] == 1 and found[("fs_writes_total", device)] == 4
    assert found[("blkio_device_usage_total", device, "999", "7", "Write")] == 2
    assert found[("fs_usage_bytes", "/dev/x")] == 777 and found[("fs_inodes_free", "/dev/x")] == 20
    assert found[("hugetlb_max_usage_bytes", "2MB")] == 8192
    assert found[("memory_failures_total", "pgmajfault", "hierarchy")] == 0
    assert found[("ulimits_soft", "max_open_files")] == 1024
    assert (found[("processes",)], found[("threads",)], found[("threads_max",)]) == (2, 4, 9)
    assert (found[("spec_cpu_period",)], found[("spec_cpu_quota",)]) == (50_000, 20_000)
    assert (found[("spec_cpu_shares",)], found[("spec_memory_swap_limit_bytes",)]) == (2, 700)
    assert (found[("start_time_seconds",)], found[("last_seen",)]) == (5, 100)


def test_what_was_not_asked_for_is_the_kernels_default() -> None:
    found = values(WHOLE, replace(CONTAINER, resources=Resources(cpu_quota=-1, memory_limit=-1)))
    assert ("spec_cpu_quota",) not in found
    assert (found[("spec_cpu_period",)], found[("spec_cpu_shares",)]) == (100_000, 1024)
    assert found[("spec_memory_limit_bytes",)] == 0


def test_a_device_that_was_never_used_counts_nothing() -> None:
    found = values(WHOLE._replace(io=IoUsage((), None)))
    assert found[("fs_reads_total", device_name(999, 1))] == 0


def test_a_pods_network() -> None:
    pod = samples_of(PodUsage(POD, BARE, None, 33, (ETH0, ETH0._replace(name="net1")), ()), DISK)
    assert len(pod.samples) == 16 and pod.containers == ()
    first = pod.samples[0]
    assert first.timestamp == 33 and first.metric.name == "container_network_receive_bytes_total"
    assert first.labels == ("POD", "/kubepods/pod1", "", "pod-id", "shop", "web-1", "eth0")
    by_name = {sample.metric.name: sample.value for sample in pod.samples}
    assert by_name["container_network_transmit_packets_dropped_total"] == 8


def test_the_filesystem_of_a_folder() -> None:
    found = filesystem_of("/")
    assert found.size > 0 and (found.major, found.minor) == (
        os.major(os.stat("/").st_dev),
        os.minor(os.stat("/").st_dev),
    )
    assert device_name(999, 7) == "999:7"

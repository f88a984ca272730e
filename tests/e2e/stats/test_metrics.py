"""The metrics that critest and the kubelet list: each announced one is sent, with the labels announced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Cri, Pod, limited

pytestmark = pytest.mark.root

MIB = 1 << 20

WANTED = """
cpu_cfs_periods_total cpu_cfs_throttled_periods_total cpu_cfs_throttled_seconds_total cpu_system_seconds_total
cpu_usage_seconds_total cpu_user_seconds_total file_descriptors fs_inodes_free fs_inodes_total fs_limit_bytes
fs_reads_bytes_total fs_reads_total fs_usage_bytes fs_writes_bytes_total fs_writes_total
blkio_device_usage_total last_seen memory_cache memory_failcnt memory_failures_total memory_kernel_usage
memory_mapped_file memory_max_usage_bytes memory_rss memory_swap memory_usage_bytes memory_working_set_bytes
network_receive_bytes_total network_receive_errors_total network_receive_packets_dropped_total
network_receive_packets_total network_transmit_bytes_total network_transmit_errors_total
network_transmit_packets_dropped_total network_transmit_packets_total oom_events_total processes sockets
spec_cpu_period spec_cpu_quota spec_cpu_shares spec_memory_limit_bytes spec_memory_reservation_limit_bytes
spec_memory_swap_limit_bytes start_time_seconds threads threads_max ulimits_soft
"""
IF_KEPT = """
hugetlb_max_usage_bytes hugetlb_usage_bytes
pressure_cpu_stalled_seconds_total pressure_cpu_waiting_seconds_total
pressure_io_stalled_seconds_total pressure_io_waiting_seconds_total pressure_memory_stalled_seconds_total
pressure_memory_waiting_seconds_total
"""


def announced(cri: Cri) -> dict[str, Any]:
    answer = cri.runtime.ListMetricDescriptors(pb.ListMetricDescriptorsRequest())
    return {one.name: one for one in answer.descriptors}


def samples(cri: Cri, pod: Pod) -> Iterator[pb.Metric]:
    answer = cri.runtime.ListPodSandboxMetrics(pb.ListPodSandboxMetricsRequest())
    (found,) = [one for one in answer.pod_metrics if one.pod_sandbox_id == pod.id]
    yield from found.metrics
    for container in found.container_metrics:
        yield from container.metrics


def value_of(cri: Cri, pod: Pod, name: str, **labels: str) -> int:
    keys = announced(cri)[f"container_{name}"].label_keys
    found = [
        int(one.value.value)
        for one in samples(cri, pod)
        if one.name == f"container_{name}"
        and labels.items() <= dict(zip(keys, one.label_values, strict=True)).items()
    ]
    assert found, f"no {name} with {labels}"
    return sum(found)


def test_names(cri: Cri) -> None:
    found = announced(cri)
    wanted = {f"container_{name}" for name in WANTED.split()}
    assert wanted <= found.keys() <= wanted | {f"container_{name}" for name in IF_KEPT.split()}
    for one in found.values():
        assert one.help and len(set(one.label_keys)) == len(one.label_keys) >= 6


def test_each_announced_one_is_sent_with_its_labels(cri: Cri, pod: Pod) -> None:
    resources = limited(cpu_period=100_000, cpu_quota=20_000, memory_limit_in_bytes=64 * MIB)
    container = pod.start("while :; do echo x > /file; done", linux=resources)
    container.tell("true")
    descriptors, seen = announced(cri), set()
    for one in samples(cri, pod):
        keys = descriptors[one.name].label_keys
        assert len(one.label_values) == len(keys) and one.timestamp and one.HasField("value")
        labels = dict(zip(keys, one.label_values, strict=True))
        assert (labels["pod"], labels["namespace"]) == ("pod", "tests")
        assert (labels["container"], labels["name"]) in {("c0", container.id), ("POD", pod.id)}
        seen.add(one.name)
    assert seen == descriptors.keys()


def test_values(cri: Cri, pod: Pod) -> None:
    resources = limited(cpu_period=100_000, cpu_quota=20_000, cpu_shares=77, memory_limit_in_bytes=64 * MIB)
    script = "dd if=/dev/zero of=/big bs=1M count=4 2>/dev/null; echo done; while :; do :; done"
    container = pod.start(script, linux=resources)
    container.wait_output("done")
    expected = {
        "spec_cpu_period": 100_000,
        "spec_cpu_quota": 20_000,
        "spec_cpu_shares": 77,
        "spec_memory_limit_bytes": 64 * MIB,
        "spec_memory_swap_limit_bytes": 64 * MIB,
        "spec_memory_reservation_limit_bytes": 0,
        "oom_events_total": 0,
        "processes": 1,
        "threads": 1,
        "sockets": 0,
        "start_time_seconds": container.status.started_at // 1_000_000_000,
    }
    assert {name: value_of(cri, pod, name) for name in expected} == expected
    wait_until(lambda: value_of(cri, pod, "cpu_cfs_throttled_periods_total") > 3, "the quota to be used up")
    throttled = value_of(cri, pod, "cpu_cfs_throttled_periods_total")
    assert value_of(cri, pod, "cpu_cfs_periods_total") >= throttled
    assert value_of(cri, pod, "fs_usage_bytes") >= 4 * MIB
    assert value_of(cri, pod, "file_descriptors") >= 3
    assert value_of(cri, pod, "ulimits_soft", ulimit="max_open_files") == int(container.tell("ulimit -n"))
    assert value_of(cri, pod, "memory_failures_total", failure_type="pgfault", scope="container") > 0
    assert value_of(cri, pod, "network_receive_bytes_total", interface="eth0") >= 0
    assert value_of(cri, pod, "memory_max_usage_bytes") >= value_of(cri, pod, "memory_rss")


def test_an_unlimited_container_has_no_quota(cri: Cri, pod: Pod) -> None:
    pod.start("sleep 60")
    assert "container_spec_cpu_quota" not in {one.name for one in samples(cri, pod)}
    assert value_of(cri, pod, "spec_memory_limit_bytes") == 0
    assert value_of(cri, pod, "spec_cpu_shares") == 1024


def test_an_oom_is_counted(cri: Cri, pod: Pod) -> None:
    """Of the container's first process's child, so that the container lives to tell."""
    script = "sh -c 'dd if=/dev/zero of=/dev/null bs=60M'; echo done; sleep 60"
    container = pod.start(script, linux=limited(memory_limit_in_bytes=16 * MIB))
    container.wait_output("done")
    assert value_of(cri, pod, "oom_events_total") == 1
    assert value_of(cri, pod, "memory_max_usage_bytes") == 16 * MIB

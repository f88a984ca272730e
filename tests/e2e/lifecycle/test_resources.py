"""Limits as they arrive in the kernel's cgroup files, at the start and when they are changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.conftest import DaemonMaker
from tests.e2e.harness.cgroups import hierarchies
from tests.e2e.harness.daemon import Daemon
from tests.e2e.lifecycle.client import Container, Cri, Pod, limited, refusal

pytestmark = pytest.mark.root

V2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
MIB = 1 << 20


def cgroup_file(daemon: Daemon, container: Container, v1: str, v2: str) -> str:
    """The content of a file of the container's cgroup, by its name in either version."""
    name = v2 if V2 else v1
    places = (root / daemon.cgroup.strip("/") / container.id / name for root in hierarchies())
    found = [place.read_text().strip() for place in places if place.exists()]
    assert found, f"no {name} for {container.id}"
    return found[0]


def memory(daemon: Daemon, container: Container) -> int:
    return int(cgroup_file(daemon, container, "memory.limit_in_bytes", "memory.max"))


def cpu(daemon: Daemon, container: Container) -> tuple[str, str]:
    """Quota and period in microseconds."""
    if V2:
        quota, period = cgroup_file(daemon, container, "", "cpu.max").split()
        return quota, period
    return (
        cgroup_file(daemon, container, "cpu.cfs_quota_us", ""),
        cgroup_file(daemon, container, "cpu.cfs_period_us", ""),
    )


def update(container: Container, **resources: Any) -> None:
    asked = pb.LinuxContainerResources(**resources)
    request = pb.UpdateContainerResourcesRequest(container_id=container.id, linux=asked)
    container.cri.runtime.UpdateContainerResources(request)


def test_limits_at_the_start(node: Daemon, pod: Pod) -> None:
    container = pod.start(
        "sleep 100",
        linux=limited(
            cpu_period=50_000,
            cpu_quota=25_000,
            cpu_shares=1024,
            memory_limit_in_bytes=64 * MIB,
            cpuset_cpus="0",
        ),
    )
    assert memory(node, container) == 64 * MIB
    assert cpu(node, container) == ("25000", "50000")
    assert cgroup_file(node, container, "cpu.shares", "cpu.weight") == ("100" if V2 else "1024")
    assert cgroup_file(node, container, "cpuset.cpus", "cpuset.cpus") == "0"
    assert container.tell("grep Cpus_allowed_list /proc/self/status").split()[-1] == "0"
    told = container.status.resources.linux
    assert (told.cpu_period, told.cpu_quota, told.cpu_shares) == (50_000, 25_000, 1024)
    assert (told.memory_limit_in_bytes, told.cpuset_cpus) == (64 * MIB, "0")


def test_a_change_keeps_what_it_does_not_name(node: Daemon, pod: Pod) -> None:
    container = pod.start("sleep 100", linux=limited(memory_limit_in_bytes=64 * MIB, cpu_shares=512))
    update(container, memory_limit_in_bytes=96 * MIB)
    assert memory(node, container) == 96 * MIB
    update(container, cpu_period=100_000, cpu_quota=30_000)
    assert cpu(node, container) == ("30000", "100000")
    assert memory(node, container) == 96 * MIB
    told = container.status.resources.linux
    assert (told.memory_limit_in_bytes, told.cpu_shares, told.cpu_quota) == (96 * MIB, 512, 30_000)
    update(container, cpu_quota=-1)
    assert cpu(node, container)[0] == ("max" if V2 else "-1")


def test_a_change_before_the_start_counts_at_the_start(node: Daemon, pod: Pod) -> None:
    container = pod.create("sleep 100", linux=limited(memory_limit_in_bytes=64 * MIB))
    update(container, memory_limit_in_bytes=32 * MIB)
    assert container.status.resources.linux.memory_limit_in_bytes == 32 * MIB
    container.start()
    assert memory(node, container) == 32 * MIB


def test_a_change_that_is_refused_changes_nothing(node: Daemon, pod: Pod) -> None:
    container = pod.start("sleep 100", linux=limited(memory_limit_in_bytes=64 * MIB))
    _, text = refusal(lambda: update(container, memory_limit_in_bytes=96 * MIB, cpuset_cpus="9999"))
    assert "cpuset" in text
    assert memory(node, container) == 64 * MIB
    assert container.status.resources.linux.memory_limit_in_bytes == 64 * MIB


def test_a_container_that_has_ended_cannot_be_changed(pod: Pod) -> None:
    code, _ = refusal(lambda: update(pod.run("true"), memory_limit_in_bytes=64 * MIB))
    assert code is grpc.StatusCode.FAILED_PRECONDITION


def test_a_limit_that_the_kernel_refuses_fails_the_start_and_leaves_no_cgroup(node: Daemon, pod: Pod) -> None:
    container = pod.create("true", linux=limited(cpuset_cpus="9999"))
    _, text = refusal(container.start)
    assert "cpuset" in text
    assert container.status.reason == "StartError"
    assert not [root for root in hierarchies() if (root / node.cgroup.strip("/") / container.id).exists()]


def test_the_limit_of_processes(make_daemon: DaemonMaker, busybox_image: str) -> None:
    daemon = make_daemon({"pools": [], "pids_limit": 16}).start()
    cri = Cri(daemon.endpoint)
    cri.pull(busybox_image)
    pod = cri.pod(daemon.folder / "logs").run_sandbox()
    container = pod.start("sleep 100")
    assert cgroup_file(daemon, container, "pids.max", "pids.max") == "16"
    answer = container.exec("for n in $(seq 32); do sleep 5 & done; true")
    assert b"can't fork" in answer.stderr
    pod.remove()
    cri.close()

"""Limits as they arrive in the kernel's cgroup files, at the start and when they are changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness.cgroups import hierarchies
from harness.daemon import DRIVER, Daemon
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Container, Cri, Pod, limited, refusal
from tests.e2e.lifecycle.conftest import PodMaker

pytestmark = pytest.mark.root

V2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
MIB = 1 << 20


def cgroup_file(daemon: Daemon, container: Container, v1: str, v2: str, optional: bool = False) -> str:
    """The content of a file of the container's cgroup, by its name in either version."""
    name = v2 if V2 else v1
    leaf = f"phantom-{container.id}.scope" if DRIVER == "systemd" else container.id
    places = (root / daemon.cgroup.strip("/") / leaf / name for root in hierarchies())
    found = [place.read_text().strip() for place in places if place.exists()]
    assert found or optional, f"no {name} for {container.id}"
    return found[0] if found else ""


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


@pytest.mark.kernel("cgroup_v1")
def test_a_limit_that_the_kernel_refuses_fails_the_start_and_leaves_no_cgroup(
    node: Daemon, make_pod: PodMaker
) -> None:
    """v1 gives nobody more of a processor than the group above has; a check of ours cannot know that."""
    parent = f"{node.cgroup}/tight"
    (cpu,) = [root for root in hierarchies() if (root / "cpu.cfs_quota_us").exists() or root.name == "cpu"]
    (cpu / parent.strip("/")).mkdir(parents=True)
    (cpu / parent.strip("/") / "cpu.cfs_quota_us").write_text("10000")
    pod = make_pod(linux=pb.LinuxPodSandboxConfig(cgroup_parent=parent))
    container = pod.create("true", linux=limited(cpu_quota=50_000, cpu_period=100_000))
    code, text = refusal(container.start)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "cpu_quota '50000'" in text
    assert container.status.reason == "StartError"
    assert not [root for root in hierarchies() if (root / parent.strip("/") / container.id).exists()]
    pod.remove()
    (cpu / parent.strip("/")).rmdir()


@pytest.mark.parametrize(
    "field, resources",
    [
        ("cpuset_cpus '9999'", {"cpuset_cpus": "9999"}),
        ("cpuset_mems 'x'", {"cpuset_mems": "x"}),
        ("cpu_quota 5", {"cpu_quota": 5}),
        ("cpu_period 7", {"cpu_period": 7}),
        ("memory_limit_in_bytes -7", {"memory_limit_in_bytes": -7}),
        (
            "memory_swap_limit_in_bytes 5",
            {"memory_limit_in_bytes": 64 * MIB, "memory_swap_limit_in_bytes": 5},
        ),
        ("unified['memory.reclaim']", {"unified": {"memory.reclaim": "1"}}),
        ("unified['../../x']", {"unified": {"../../x": "1"}}),
        ("hugepage_limits[3MB] 9", {"hugepage_limits": [pb.HugepageLimit(page_size="3MB", limit=9)]}),
    ],
)
def test_a_wrong_value_is_named_before_anything_is_made(
    pod: Pod, field: str, resources: dict[str, Any]
) -> None:
    code, text = refusal(lambda: pod.create("true", linux=limited(**resources)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"linux.resources.{field}" in text
    assert not pod.cri.containers()
    container = pod.start("sleep 100")
    code, text = refusal(lambda: update(container, **resources))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"linux.resources.{field}" in text


def test_memory_and_swap_are_counted_together(node: Daemon, pod: Pod) -> None:
    """A new limit keeps the swap beside it; each file gets its value whichever has to be written first."""
    limits = {"memory_limit_in_bytes": 64 * MIB, "memory_swap_limit_in_bytes": 80 * MIB}
    container = pod.start("sleep 100", linux=limited(**limits))
    for megabytes in (32, 128, 48):
        update(container, memory_limit_in_bytes=megabytes * MIB)
        assert memory(node, container) == megabytes * MIB
        swap = cgroup_file(node, container, "memory.memsw.limit_in_bytes", "memory.swap.max", optional=True)
        assert swap in ("", str((16 if V2 else megabytes + 16) * MIB))
        told = container.status.resources.linux
        assert told.memory_swap_limit_in_bytes == (megabytes + 16) * MIB


def test_no_limit_below_what_is_in_use(node: Daemon, pod: Pod) -> None:
    """Nobody is killed for it: the resize is refused, and all is as before."""
    held = (
        "x=$(head -c 50000000 /dev/zero | tr '\\0' x); echo held; sleep 100; true"  # the shell itself stays
    )
    container = pod.start(held, linux=limited(memory_limit_in_bytes=400 * MIB))
    container.wait_output("held")
    code, text = refusal(lambda: update(container, memory_limit_in_bytes=16 * MIB, cpu_shares=512))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert f"memory_limit_in_bytes '{16 * MIB}'" in text or f"memory_limit_in_bytes {16 * MIB}" in text
    assert memory(node, container) == 400 * MIB
    assert container.status.state == pb.CONTAINER_RUNNING
    assert container.status.resources.linux.memory_limit_in_bytes == 400 * MIB
    assert container.status.resources.linux.cpu_shares == 0


def test_a_killed_child_is_told_whatever_its_parent_makes_of_it(pod: Pod) -> None:
    eats = "head -c 300000000 /dev/zero | tail -c 300000000 >/dev/null"
    container = pod.start(f"({eats}); exit 0", linux=limited(memory_limit_in_bytes=32 * MIB))
    assert container.wait_exited().reason == "OOMKilled"
    quiet = pod.run("exit 3", linux=limited(memory_limit_in_bytes=32 * MIB))
    assert quiet.wait_exited().reason == "Error"


def test_the_resources_of_a_pod_are_noted_and_told(pod: Pod) -> None:
    def resize(sandbox_id: str, **fields: Any) -> None:
        request = pb.UpdatePodSandboxResourcesRequest(pod_sandbox_id=sandbox_id, **fields)
        pod.cri.runtime.UpdatePodSandboxResources(request)

    resize(pod.id, resources=pb.LinuxContainerResources(cpu_shares=512, memory_limit_in_bytes=64 * MIB))
    resize(pod.id, resources=pb.LinuxContainerResources(memory_limit_in_bytes=96 * MIB))
    resize(pod.id, overhead=pb.LinuxContainerResources(cpu_shares=2))
    answer = pod.cri.runtime.PodSandboxStatus(pb.PodSandboxStatusRequest(pod_sandbox_id=pod.id, verbose=True))
    told = json.loads(answer.info["info"])
    assert told["resources"] == {"cpu_shares": 512, "memory_limit": 96 * MIB}
    assert told["overhead"] == {"cpu_shares": 2}
    assert refusal(lambda: resize(""))[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal(lambda: resize("f" * 64))[0] is grpc.StatusCode.NOT_FOUND
    wrong = pb.LinuxContainerResources(cpu_quota=5)
    assert refusal(lambda: resize(pod.id, resources=wrong))[0] is grpc.StatusCode.INVALID_ARGUMENT


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

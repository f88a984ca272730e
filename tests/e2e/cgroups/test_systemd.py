"""The systemd driver on a host that runs systemd: scopes, slices, and that both sides agree on the limits."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness.daemon import Daemon
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Container, Cri, Pod, limited, refusal

MIB = 1 << 20
ROOT = Path("/sys/fs/cgroup")

pytestmark = pytest.mark.root
on_systemd = pytest.mark.kernel("systemd", "cgroup_v2")


def systemd_config(name: str) -> dict[str, Any]:
    return {
        "pools": [{"name": "default", "size": 2}],
        "cgroup": {"driver": "systemd", "default_parent": f"/{name}"},
    }


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    name = "phantom-unit"
    daemon = Daemon(Path(tempfile.mkdtemp(prefix="pf-")), systemd_config(name))
    daemon.cgroup = f"/phantom.slice/{name}.slice"
    try:
        yield daemon.start()
    finally:
        daemon.destroy()
        subprocess.run(["systemctl", "stop", f"{name}.slice"], check=True)


@pytest.fixture(scope="module")
def client(daemon: Daemon, busybox_image: str) -> Iterator[Cri]:
    client = Cri(daemon.endpoint)
    client.pull(busybox_image)
    yield client
    client.close()


@pytest.fixture
def cri(client: Cri, request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[Cri]:
    request.node.daemons = [daemon]  # the end of its log is shown when the test fails
    yield client
    client.remove_pods()


@pytest.fixture
def pod(cri: Cri, tmp_path: Path) -> Pod:
    return cri.pod(tmp_path).run_sandbox()


def scopes() -> set[str]:
    command = ["systemctl", "list-units", "--all", "--plain", "--no-legend", "phantom-*.scope"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {line.split()[0] for line in said.splitlines()}


def shown(container: Container, *names: str) -> list[str]:
    command = ["systemctl", "show", f"phantom-{container.id}.scope", *(f"-p{name}" for name in names)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    values = dict(line.partition("=")[::2] for line in said.splitlines())
    return [values[name] for name in names]


def read(container: Container, file: str) -> str:
    (place,) = shown(container, "ControlGroup")
    return (ROOT / place.strip("/") / file).read_text().strip()


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="systemd runs this host")
def test_a_host_without_systemd_is_told_at_the_start(make_daemon: DaemonMaker) -> None:
    daemon = make_daemon(systemd_config("phantom-none"))
    child = daemon.launch()
    wait_until(lambda: not child.running(), "the daemon to give up", timeout=30)
    assert child.process.returncode == 1
    assert "cgroup.driver systemd: this host was not booted with systemd" in daemon.log_text()


@on_systemd
def test_a_container_has_a_scope_in_its_pods_slice(cri: Cri, tmp_path: Path) -> None:
    config = pb.LinuxPodSandboxConfig(cgroup_parent="/ignored.slice/phantom-kube-pod1_2.slice")
    pod = cri.pod(tmp_path, linux=config).run_sandbox()
    container = pod.start("sleep 100", linux=limited(cpu_shares=512))
    place, state, delegated = shown(container, "ControlGroup", "ActiveState", "Delegate")
    assert place == (
        f"/phantom.slice/phantom-kube.slice/phantom-kube-pod1_2.slice/phantom-{container.id}.scope"
    )
    assert (state, delegated) == ("active", "yes")
    assert len(read(container, "cgroup.procs").split()) == 1
    pod.remove()
    assert f"phantom-{container.id}.scope" not in scopes()
    subprocess.run(["systemctl", "stop", "phantom-kube.slice"], check=True)


@on_systemd
def test_the_driver_is_told_and_other_parents_are_refused(cri: Cri, tmp_path: Path) -> None:
    config = cri.runtime.RuntimeConfig(pb.RuntimeConfigRequest())
    assert config.linux.cgroup_driver == pb.SYSTEMD
    for parent in ("/kubepods/pod1", "a--b.slice", "/x.slice/y.scope"):
        wrong = cri.pod(tmp_path, linux=pb.LinuxPodSandboxConfig(cgroup_parent=parent))
        code, text = refusal(wrong.run_sandbox)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "cgroup_parent" in text


LIMITS = {
    "cpu_shares": 512,
    "cpu_period": 100_000,
    "cpu_quota": 33_333,
    "memory_limit_in_bytes": 64 * MIB,
    "memory_swap_limit_in_bytes": 80 * MIB,
    "cpuset_cpus": "0",
    "unified": {"memory.high": str(60 * MIB), "pids.max": "77", "memory.oom.group": "1"},
    "hugepage_limits": [pb.HugepageLimit(page_size="2MB", limit=4 * MIB)],
}
FILES = {
    "cpu.weight": "59",
    "cpu.max": "33333 100000",
    "memory.max": str(64 * MIB),
    "memory.swap.max": str(16 * MIB),
    "cpuset.cpus": "0",
    "memory.high": str(60 * MIB),
    "pids.max": "77",
    "memory.oom.group": "1",
    "hugetlb.2MB.max": str(4 * MIB),
}


@on_systemd
def test_systemd_agrees_on_the_limits_and_keeps_them(pod: Pod) -> None:
    container = pod.start("sleep 100", linux=limited(**LIMITS))
    assert {file: read(container, file) for file in FILES} == FILES
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    # Where systemd has set it anew, it is in whole percents; and it may set its own idea of memory.oom.group.
    assert read(container, "cpu.max") in (FILES["cpu.max"], "34000 100000")
    others = {file: FILES[file] for file in FILES.keys() - {"cpu.max", "memory.oom.group"}}
    assert {file: read(container, file) for file in others} == others


@on_systemd
def test_a_resize_reaches_the_kernel_and_systemd(pod: Pod) -> None:
    container = pod.start("sleep 100", linux=limited(memory_limit_in_bytes=64 * MIB))
    change = pb.LinuxContainerResources(
        memory_limit_in_bytes=96 * MIB, cpu_shares=2048, cpu_quota=50_000, cpu_period=100_000
    )
    request = pb.UpdateContainerResourcesRequest(container_id=container.id, linux=change)
    pod.cri.runtime.UpdateContainerResources(request)
    told = shown(container, "MemoryMax", "CPUWeight", "CPUQuotaPerSecUSec")
    assert told == [str(96 * MIB), "174", "500ms"]
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    values = [read(container, file) for file in ("memory.max", "cpu.weight", "cpu.max")]
    assert values == [str(96 * MIB), "174", "50000 100000"]


@on_systemd
def test_an_out_of_memory_kill_is_told_however_fast_the_scope_goes(pod: Pod) -> None:
    for group in "01" * 5:
        limits = limited(memory_limit_in_bytes=16 * MIB, unified={"memory.oom.group": group})
        container = pod.run("x=x; while :; do x=$x$x; done", linux=limits)
        status = container.wait_exited(60)
        assert (status.exit_code, status.reason) == (137, "OOMKilled")
        container.remove()


@on_systemd
def test_nothing_stays_of_containers_whichever_way_they_end(pod: Pod) -> None:
    ended, stopped, never = pod.run("true"), pod.start("sleep 100"), pod.create("true")
    broken = pod.create(["/no/such/program"])
    refusal(broken.start)
    stopped.stop(0)
    for container in (ended, stopped, never, broken):
        container.remove()
    wait_until(lambda: scopes() == {"phantom-unit-fragments.scope"}, "scopes to go")


@on_systemd
def test_an_exec_that_takes_too_long_is_killed_whole(pod: Pod) -> None:
    container = pod.start("sleep 1000")
    code, _ = refusal(lambda: container.exec("sh", "-c", "sleep 777 & sleep 777", timeout=2))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert container.tell("pgrep -f [7]77 || echo none").split()[-1] == "none"


@on_systemd
def test_pods_outlive_the_daemon_and_the_last_one_takes_all_along(daemon: Daemon, cri: Cri, pod: Pod) -> None:
    running, waiting = pod.start("sleep 1000"), pod.create("sleep 1000")
    daemon.kill()
    daemon.start()
    cri.wait_served()
    assert running.status.state == pb.CONTAINER_RUNNING
    assert running.tell("echo here").strip() == "here"
    waiting.start()
    assert waiting.tell("echo here").strip() == "here"
    pod.remove()
    assert daemon.stop() == 0
    wait_until(lambda: not scopes(), "scopes to go")
    daemon.start()
    cri.wait_served()

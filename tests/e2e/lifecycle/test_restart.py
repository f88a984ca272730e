"""What a new daemon takes over from one that was stopped, killed, or gone with the machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness.cgroups import groups_below, remove_cgroups
from harness.daemon import Daemon, free_port
from harness.host import kill_below, processes_below
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Container, Cri, Pod, limited, refusal
from tests.e2e.lifecycle.conftest import warmed_up

pytestmark = pytest.mark.root

POOL = {"pools": [{"name": "default", "size": 2}]}


@pytest.fixture
def daemon(make_daemon: DaemonMaker) -> Daemon:
    return make_daemon(POOL).start()


@pytest.fixture
def cri(daemon: Daemon, busybox_image: str) -> Iterator[Cri]:
    client = Cri(daemon.endpoint)
    client.pull(busybox_image)
    yield client
    client.close()


@pytest.fixture
def pod(cri: Cri, tmp_path: Path) -> Pod:
    return cri.pod(tmp_path).run_sandbox()


def come_back(daemon: Daemon, cri: Cri) -> None:
    daemon.start()
    cri.wait_served()


def fragment_of(daemon: Daemon, pod: Pod) -> int:
    return int(json.loads((daemon.state / "pods" / pod.id / "fragment.json").read_text())["pid"])


def alive(pid: int) -> bool:
    """A zombie is not: whoever inherits orphans here may take its time to reap them."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def counter(last: int) -> str:
    return f"n=0; while [ $n -lt {last} ]; do n=$((n+1)); echo line $n; sleep 0.01; done"


def numbered(container: Container) -> list[str]:
    lines = container.output.splitlines()
    assert lines == [f"line {n + 1}" for n in range(len(lines))], "none lost, none twice, in order"
    return lines


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_all_goes_on_as_it_was(daemon: Daemon, cri: Cri, tmp_path: Path, end: str) -> None:
    before = warmed_up(daemon, cri)
    pod = cri.pod(tmp_path, labels={"a": "b"}, hostname="kept").run_sandbox()
    stopped = cri.pod(tmp_path).run_sandbox()
    ended_with_its_pod = stopped.start("sleep 100")
    stopped.stop()
    running, created, ended = (
        pod.start(counter(10_000)),
        pod.create("echo late"),
        pod.run("echo over; exit 4"),
    )
    containers = [running, created, ended, ended_with_its_pod]
    known = [container.status for container in containers]
    pods = [pod.status, stopped.status]

    getattr(daemon, end)()
    come_back(daemon, cri)

    assert [container.status for container in containers] == known
    assert [pod.status, stopped.status] == pods
    assert running.tell("hostname") == "kept"
    seen = len(numbered(running))
    wait_until(lambda: len(numbered(running)) > seen, "more lines")
    created.start()
    assert created.wait_exited().exit_code == 0
    assert created.output == "late"
    assert ended.output == "over"
    running.stop()
    assert running.status.exit_code == 137
    assert pod.run("echo new").output == "new"
    cri.remove_pods()
    daemon.wait_for_no_traces(before)


def test_an_exit_while_the_daemon_is_away(daemon: Daemon, cri: Cri, pod: Pod, tmp_path: Path) -> None:
    mounts = [pb.Mount(container_path="/sign", host_path=str(tmp_path / "sign"))]
    script = f"until [ -e /sign/go ]; do sleep 0.01; done; {counter(300)}; exit 5"
    container = pod.start(script, mounts=mounts)
    eater = pod.start(
        "until [ -e /sign/go ]; do sleep 0.01; done; tail /dev/zero",
        mounts=mounts,
        linux=limited(memory_limit_in_bytes=16 << 20),
    )
    pids = [int(json.loads(one.details)["pid"]) for one in (container, eater)]
    daemon.kill()
    went = time.time_ns()
    (tmp_path / "sign" / "go").touch()
    wait_until(lambda: not any(map(alive, pids)), "the containers to end", 30)
    back = time.time_ns()
    come_back(daemon, cri)
    status = container.status
    assert (status.state, status.exit_code, status.reason) == (pb.CONTAINER_EXITED, 5, "Error")
    assert went < status.finished_at < back
    assert len(numbered(container)) == 300
    assert (eater.status.exit_code, eater.status.reason) == (137, "OOMKilled")
    assert pod.status.state == pb.SANDBOX_READY


@pytest.mark.parametrize("away", [False, True])
def test_a_fragment_that_is_killed(daemon: Daemon, cri: Cri, tmp_path: Path, away: bool) -> None:
    before = warmed_up(daemon, cri)
    pod = cri.pod(tmp_path).run_sandbox()
    running, created, ended = pod.start("sleep 100"), pod.create("true"), pod.run("exit 4")
    if away:
        daemon.kill()
    os.kill(fragment_of(daemon, pod), signal.SIGKILL)
    if away:
        come_back(daemon, cri)
    wait_until(lambda: pod.status.state == pb.SANDBOX_NOTREADY, "the pod to be seen as dead")
    status = running.status
    assert (status.state, status.exit_code) == (pb.CONTAINER_EXITED, 137)
    assert status.finished_at >= status.started_at
    assert ended.status.exit_code == 4
    code, _ = refusal(created.start)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal(lambda: pod.create("true"))[0] is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal(lambda: running.exec("true"))[0] is grpc.StatusCode.FAILED_PRECONDITION
    for container in (running, created, ended):
        container.stop(timeout=5)
        container.remove()
    pod.stop()
    pod.remove()
    daemon.wait_for_no_traces(before)


def test_a_pod_with_the_hosts_pids_ends_whole_with_its_fragment(
    daemon: Daemon, cri: Cri, tmp_path: Path
) -> None:
    """No pid namespace ends with the fragment here: what it leaves running is for the daemon to kill."""
    options = pb.NamespaceOption(pid=pb.NODE)
    sandbox = pb.LinuxPodSandboxConfig(
        security_context=pb.LinuxSandboxSecurityContext(namespace_options=options)
    )
    pod = cri.pod(tmp_path, linux=sandbox).run_sandbox()
    security = pb.LinuxContainerSecurityContext(namespace_options=options)
    container = pod.start("sleep 2468 & sleep 2469", linux=pb.LinuxContainerConfig(security_context=security))
    os.kill(fragment_of(daemon, pod), signal.SIGKILL)
    wait_until(lambda: pod.status.state == pb.SANDBOX_NOTREADY, "the pod to be seen as dead")
    container.wait_exited()
    pod.remove()
    assert subprocess.run(["pgrep", "-f", "^sleep 246[89]"], check=False).returncode == 1


def test_the_pool_of_a_dead_daemon_is_gone_and_filled_anew(daemon: Daemon, cri: Cri, pod: Pod) -> None:
    cri.wait_pools_full()
    daemon.kill()
    kept = fragment_of(daemon, pod)
    warm = processes_below(daemon.state) - {kept}
    assert len(warm) == 2
    come_back(daemon, cri)
    cri.wait_pools_full()
    assert not [pid for pid in warm if alive(pid)]
    assert alive(kept)
    assert len(processes_below(daemon.state) - {kept, daemon.running.pid}) == 2


@pytest.mark.parametrize("shared", ["root", "state"])
def test_a_second_daemon_in_the_same_folder_refuses_by_name(
    daemon: Daemon, make_daemon: DaemonMaker, shared: str
) -> None:
    folder = str(getattr(daemon, shared))
    second = make_daemon({shared: folder})
    child = second.launch()
    wait_until(lambda: not child.running(), "the second daemon to give up")
    assert child.process.returncode == 1
    assert f"{folder} is in use by another phantom-cri, pid {daemon.running.pid}" in second.log_text()
    assert daemon.accepts()


def test_a_second_daemon_at_the_same_socket_refuses_by_name(daemon: Daemon, make_daemon: DaemonMaker) -> None:
    second = make_daemon({"listen": daemon.endpoint})
    child = second.launch()
    wait_until(lambda: not child.running(), "the second daemon to give up")
    assert child.process.returncode == 1
    assert f"another daemon answers at {daemon.socket}" in second.log_text()
    assert daemon.accepts()


def test_a_request_sent_again_after_a_crash_means_what_it_made(daemon: Daemon, cri: Cri, pod: Pod) -> None:
    create = pb.CreateContainerRequest(
        pod_sandbox_id=pod.id, config=pod.container_config("sleep 100"), sandbox_config=pod.config
    )
    run = pb.RunPodSandboxRequest(config=pod.config)
    assert refusal(lambda: cri.runtime.RunPodSandbox(run))[0] is grpc.StatusCode.ALREADY_EXISTS
    daemon.kill()
    come_back(daemon, cri)
    assert cri.runtime.RunPodSandbox(run).pod_sandbox_id == pod.id
    assert refusal(lambda: cri.runtime.RunPodSandbox(run))[0] is grpc.StatusCode.ALREADY_EXISTS

    made = cri.runtime.CreateContainer(create).container_id
    daemon.kill()
    come_back(daemon, cri)
    assert cri.runtime.CreateContainer(create).container_id == made
    assert refusal(lambda: cri.runtime.CreateContainer(create))[0] is grpc.StatusCode.ALREADY_EXISTS

    container = Container(cri, made)
    container.start()
    daemon.kill()
    come_back(daemon, cri)
    container.start()
    assert refusal(container.start)[0] is grpc.StatusCode.FAILED_PRECONDITION
    assert cri.containers() == {made}


def test_a_request_sent_again_with_another_content_is_refused(daemon: Daemon, cri: Cri, pod: Pod) -> None:
    daemon.kill()
    come_back(daemon, cri)
    changed = pb.PodSandboxConfig()
    changed.CopyFrom(pod.config)
    changed.hostname = "other"
    code, text = refusal(lambda: cri.runtime.RunPodSandbox(pb.RunPodSandboxRequest(config=changed)))
    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert pod.id in text


def has_file(folder: Path, name: str) -> bool:
    """Folders may vanish meanwhile."""
    return any(name in files for _, _, files in os.walk(folder))


def test_after_a_reboot_pods_are_gone_and_images_are_not(
    daemon: Daemon, cri: Cri, pod: Pod, tmp_path: Path
) -> None:
    pod.start("echo x > /written; sleep 100")
    pod.create("true")
    daemon.kill()
    kill_below(daemon.state)
    remove_cgroups(daemon.cgroup)
    subprocess.run(["ip", "link", "delete", daemon.bridge], check=True)
    shutil.rmtree(daemon.state)
    come_back(daemon, cri)
    assert (cri.pods(), cri.containers()) == (set(), set())
    assert [image.id for image in cri.images.ListImages(pb.ListImagesRequest()).images] == [cri.image]
    wait_until(lambda: not has_file(daemon.root, "written"), "the writable layers to go")
    again = Pod(cri, pod.config)
    assert again.run_sandbox().run("echo up").output == "up"


def test_addresses_and_host_ports_stay_taken(daemon: Daemon, cri: Cri, tmp_path: Path) -> None:
    port = free_port()
    pod = cri.pod(tmp_path, port_mappings=[pb.PortMapping(container_port=80, host_port=port)]).run_sandbox()
    pod.start("echo served > /index.html; exec busybox httpd -f -p 80 -h /")
    daemon.kill()
    assert wait_until(lambda: served_at(port), "the server, while the daemon is away") == b"served\n"
    come_back(daemon, cri)
    assert served_at(port) == b"served\n"
    others = [cri.pod(tmp_path).run_sandbox() for _ in range(4)]
    assert pod.ip not in {other.ip for other in others}
    taken = [pb.PortMapping(container_port=80, host_port=port)]
    assert str(port) in refusal(lambda: cri.pod(tmp_path, port_mappings=taken).run_sandbox())[1]
    pod.remove()
    with socket.socket() as probe:
        probe.settimeout(1)
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def served_at(port: int) -> bytes:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as answer:
            content: bytes = answer.read()
            return content
    except OSError:
        return b""


def test_sigterm_lets_calls_under_way_end(daemon: Daemon, cri: Cri, pod: Pod) -> None:
    container = pod.start("sleep 100")
    request = pb.ExecSyncRequest(
        container_id=container.id, cmd=["sh", "-c", "echo began > /b; sleep 1; echo ended"]
    )
    call = cri.runtime.ExecSync.future(request)
    wait_until(lambda: container.exec("test -e /b").exit_code == 0, "the exec to run")
    assert daemon.stop() == 0
    assert call.result(timeout=1).stdout == b"ended\n"
    assert not daemon.socket.exists()


def test_what_was_half_made_is_undone(daemon: Daemon, cri: Cri, pod: Pod) -> None:
    """The three states of a pod's folder that a crash can leave without a finished pod."""
    container = pod.create("true")
    daemon.stop()
    pods = daemon.state / "pods"
    empty, cut = pods / ("e" * 64), pods / ("c" * 64)
    (empty / "containers").mkdir(parents=True)
    (cut / "containers").mkdir(parents=True)
    (cut / "pod.json.new").write_text('{"id": "cc')
    unfinished = pods / pod.id / "containers" / f"{container.id}.json"
    unfinished.rename(unfinished.with_name(unfinished.name + ".new"))
    come_back(daemon, cri)
    assert cri.pods() == {pod.id}
    assert cri.containers() == set()
    assert not (empty.exists() or cut.exists() or unfinished.with_name(unfinished.name + ".new").exists())
    wait_until(lambda: not (daemon.root / "containers" / container.id).exists(), "its snapshot to go")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": 1}'])
def test_a_record_that_cannot_be_read_does_not_keep_the_daemon_down(
    daemon: Daemon, cri: Cri, pod: Pod, content: Any
) -> None:
    """Bad memory or a full disk: the pod is given up, not the node."""
    other = cri.pod(Path(pod.config.log_directory)).run_sandbox()
    container = other.start("sleep 100")
    pid = int(json.loads(container.details)["pid"])
    daemon.stop()
    (daemon.state / "pods" / other.id / "containers" / f"{container.id}.json").write_text(content)
    come_back(daemon, cri)
    assert pod.run("echo well").output == "well"
    assert cri.pods() == {pod.id}
    assert not alive(pid)
    assert container.id not in {group.name for group in groups_below(daemon.cgroup)}

"""After the machine went down: what was known is known, nothing of it runs, all of it can be removed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import grpc
import pytest

from harness.crictl import Crictl
from harness.daemon import Daemon, free_port
from harness.reboot import go_down
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Container, Cri, Pod, limited, refusal
from tests.e2e.lifecycle.conftest import settled, warmed_up

pytestmark = pytest.mark.root

WINDOW_S = 0.5
"""Within which an exit is on the disk (docs/architecture.md, "Reboot and power loss"), on a busy machine."""


def reboot(daemon: Daemon, cri: Cri) -> None:
    time.sleep(WINDOW_S)
    go_down(daemon)
    daemon.start()
    cri.wait_served()


def details_of(pod: Pod) -> str:
    request = pb.PodSandboxStatusRequest(pod_sandbox_id=pod.id, verbose=True)
    return str(pod.cri.runtime.PodSandboxStatus(request).info["info"])


def one_of_each(cri: Cri, pod: Pod) -> dict[str, Container]:
    """A container of every kind that there can be in a pod."""
    killed = pod.start("sleep 100")
    os.kill(json.loads(killed.details)["pid"], signal.SIGKILL)
    running = pod.start("echo x > /written; echo up; sleep 100")
    running.wait_output("up")
    removed = pod.run("exit 6")
    removed.remove()
    unstartable = pod.create(["/no/such/program"])
    refusal(unstartable.start)
    return {
        "completed": pod.run("echo out; echo err >&2", labels={"job": "once"}, annotations={"a": "b"}),
        "failed": pod.run("exit 3"),
        "killed": killed,
        "eater": pod.run("tail /dev/zero", linux=limited(memory_limit_in_bytes=16 << 20)),
        "running": running,
        "created": pod.create("true"),
        "unstartable": unstartable,
    }


def test_what_had_ended_is_as_it_was_and_what_ran_has_ended(daemon: Daemon, cri: Cri, tmp_path: Path) -> None:
    before = warmed_up(daemon, cri)
    port = free_port()
    ports = [pb.PortMapping(container_port=80, host_port=port)]
    pod = cri.pod(tmp_path, labels={"l": "1"}, annotations={"a": "2"}, port_mappings=ports).run_sandbox()
    made = one_of_each(cri, pod)
    stopped = cri.pod(tmp_path).run_sandbox()
    ended = stopped.run("exit 4")
    stopped.stop()
    gone = cri.pod(tmp_path).run_sandbox()
    gone.run("true")
    gone.remove()
    made["killed"].wait_exited()
    known = {name: container.status for name, container in made.items()}
    known_pod, known_stopped, known_ended = pod.status, stopped.status, ended.status

    went = time.time_ns()
    reboot(daemon, cri)

    assert cri.pods() == {pod.id, stopped.id}
    assert cri.containers() == {container.id for container in (*made.values(), ended)}
    assert (stopped.status, ended.status) == (known_stopped, known_ended)
    assert (known["completed"].exit_code, known["completed"].reason) == (0, "Completed")
    assert (known["failed"].exit_code, known["killed"].exit_code) == (3, 137)
    assert known["eater"].reason == "OOMKilled"
    for name, container in made.items():
        if name != "running":
            assert container.status == known[name], name
    assert made["completed"].output.splitlines() == ["out", "err"]

    status = made["running"].status
    assert (status.state, status.exit_code, status.reason) == (pb.CONTAINER_EXITED, 255, "Unknown")
    assert went < status.finished_at <= time.time_ns()
    for field in ("state", "exit_code", "reason", "message", "finished_at"):
        status.ClearField(field)
        known["running"].ClearField(field)
    assert status == known["running"], "nothing else has changed"

    assert pod.status.state == pb.SANDBOX_NOTREADY
    known_pod.state = pb.SANDBOX_NOTREADY
    known_pod.network.Clear()
    assert pod.status == known_pod
    check_refusals(cri, pod, made)

    again = cri.pod(tmp_path, metadata=pod.config.metadata, port_mappings=ports)
    again.config.metadata.attempt = 1
    again.run_sandbox()  # with the host port, which is free
    assert again.run("echo anew").output == "anew"
    remove_all(daemon, made, [pod, stopped, again])
    daemon.wait_for_no_traces(before)


def check_refusals(cri: Cri, pod: Pod, made: dict[str, Container]) -> None:
    precondition = grpc.StatusCode.FAILED_PRECONDITION
    for name, container in made.items():
        assert refusal(container.start)[0] is precondition, name
        assert refusal(lambda one=container: one.exec("true"))[0] is precondition, name  # type: ignore[misc]
        assert json.loads(container.details)["pid"] == 0
    assert refusal(lambda: pod.create("true"))[0] is precondition
    assert json.loads(details_of(pod))["pid"] == 0
    code, text = refusal(pod.run_sandbox)
    assert code is grpc.StatusCode.ALREADY_EXISTS, "its name is taken, as by a pod that was stopped"
    assert pod.id in text


def remove_all(daemon: Daemon, made: dict[str, Container], pods: list[Pod]) -> None:
    """As the kubelet does it, which stops what it finds first."""
    uppers = [daemon.root / "containers" / container.id for container in made.values()]
    assert all(map(Path.exists, uppers)), "kept for as long as their containers are known"
    assert (daemon.root / "containers" / made["running"].id / "upper/written").read_text() == "x\n"
    for container in made.values():
        container.stop(timeout=1)
        container.remove()
    for pod in pods:
        pod.stop()
        pod.remove()
    wait_until(lambda: not any(map(Path.exists, uppers)), "the writable layers to go")


def test_crictl_shows_it(daemon: Daemon, cri: Cri, tmp_path: Path) -> None:
    crictl = Crictl(daemon.endpoint, tmp_path)
    pod = cri.pod(tmp_path).run_sandbox()
    job, server = pod.run("echo done"), pod.start("echo up; sleep 100")
    server.wait_output("up")
    reboot(daemon, cri)
    shown = {one["id"]: one["state"] for one in crictl.json("ps", "-a", "-o", "json")["containers"]}
    assert shown == {job.id: "CONTAINER_EXITED", server.id: "CONTAINER_EXITED"}
    assert crictl.json("ps", "-o", "json")["containers"] == []
    status = crictl.json("inspect", server.id)["status"]
    assert (status["exitCode"], status["reason"]) == (255, "Unknown")
    assert crictl.json("inspect", job.id)["status"]["exitCode"] == 0
    assert crictl.json("inspectp", pod.id)["status"]["state"] == "SANDBOX_NOTREADY"
    assert crictl.run("logs", job.id) == "done\n"
    stats = crictl.json("stats", "-a", "-o", "json")["stats"]
    assert {one["attributes"]["id"] for one in stats} == {job.id, server.id}
    assert crictl.json("info")["config"]["durableRecords"] == "on"
    crictl.run("rmp", pod.id)
    assert (cri.pods(), cri.containers()) == (set(), set())


def test_a_second_reboot_changes_nothing_more(daemon: Daemon, cri: Cri, tmp_path: Path) -> None:
    pod = cri.pod(tmp_path).run_sandbox()
    running, ended = pod.start("sleep 100"), pod.run("exit 5")
    reboot(daemon, cri)
    known = [running.status, ended.status, pod.status]
    daemon.restart()
    cri.wait_served()
    assert [running.status, ended.status, pod.status] == known
    assert refusal(running.start)[0] is grpc.StatusCode.FAILED_PRECONDITION
    reboot(daemon, cri)
    assert [running.status, ended.status, pod.status] == known


def test_an_orderly_stop_leaves_nothing_unwritten(daemon: Daemon, cri: Cri, tmp_path: Path) -> None:
    pod = cri.pod(tmp_path).run_sandbox()
    container = pod.run("exit 7")
    known = container.status
    daemon.stop()
    go_down(daemon)
    daemon.start()
    cri.wait_served()
    assert container.status == known


def test_a_state_folder_that_outlived_the_boot_is_not_believed(
    daemon: Daemon, cri: Cri, tmp_path: Path
) -> None:
    """On a disk. Its pids are other processes' by now, and those must live."""
    pod = cri.pod(tmp_path).run_sandbox()
    container, ended = pod.start("sleep 100"), pod.run("exit 3")
    time.sleep(WINDOW_S)
    fragment = int(json.loads((daemon.state / "pods" / pod.id / "fragment.json").read_text())["pid"])
    daemon.kill()
    (daemon.state / "pods/boot_id").write_text("11111111-2222-3333-4444-555555555555")
    daemon.start()
    cri.wait_served()
    assert pod.status.state == pb.SANDBOX_NOTREADY
    assert (container.status.exit_code, ended.status.exit_code) == (255, 3)
    assert "is of another boot" in daemon.log_text()
    # On this machine it was the pod's own after all, which has lost its folder.
    wait_until(lambda: not Path(f"/proc/{fragment}/ns").exists(), "the fragment to end")
    pod.remove()
    assert refusal(lambda: pod.status)[0] is grpc.StatusCode.NOT_FOUND


def test_a_state_folder_cleared_under_running_pods(daemon: Daemon, cri: Cri, tmp_path: Path) -> None:
    """No reboot, but as good as one: fragments that nothing leads to are ended, and with them their pods."""
    before = warmed_up(daemon, cri)
    options = pb.NamespaceOption(pid=pb.NODE)
    sandbox = pb.LinuxPodSandboxConfig(
        security_context=pb.LinuxSandboxSecurityContext(namespace_options=options)
    )
    security = pb.LinuxContainerSecurityContext(namespace_options=options)
    pods = [cri.pod(tmp_path).run_sandbox(), cri.pod(tmp_path, linux=sandbox).run_sandbox()]
    containers = [
        pods[0].start("sleep 100"),
        pods[1].start("sleep 100", linux=pb.LinuxContainerConfig(security_context=security)),
    ]
    pids = [json.loads(container.details)["pid"] for container in containers]
    time.sleep(WINDOW_S)
    daemon.kill()
    shutil.rmtree(daemon.state / "pods")
    daemon.start()
    cri.wait_served()
    assert [container.status.exit_code for container in containers] == [255, 255]
    wait_until(lambda: not any(Path(f"/proc/{pid}/ns").exists() for pid in pids), "their processes to end")
    assert "has lost its folder" in daemon.log_text()
    for pod in pods:
        pod.stop()
        pod.remove()
    settled(daemon, cri)
    daemon.wait_for_no_traces(before)

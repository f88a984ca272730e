"""How containers end, and what their status says of it."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import grpc
import pytest

from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Container, Pod, limited, linux, refusal

pytestmark = pytest.mark.root

IGNORES_SIGTERM = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
ENDS_AT_SIGTERM = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [("true", 0, "Completed"), ("exit 3", 3, "Error"), ("exit 255", 255, "Error")],
)
def test_exit_codes(pod: Pod, script: str, code: int, reason: str) -> None:
    status = pod.run(script).status
    assert (status.exit_code, status.reason, status.message) == (code, reason, "")
    assert status.created_at <= status.started_at <= status.finished_at
    assert time.time_ns() - status.created_at < 60e9, "nanoseconds since the epoch"


@pytest.mark.parametrize(("signal", "code"), [("KILL", 137), ("TERM", 143), ("SEGV", 139)])
def test_a_signal_from_inside(pod: Pod, signal: str, code: int) -> None:
    """In the pod's pid namespace, where a container's first process is not spared as pid 1 is."""
    status = pod.run(f"kill -{signal} $$", linux=linux(namespace_options=pb.NamespaceOption())).status
    assert (status.exit_code, status.reason) == (code, "Error")


def test_before_it_ends_there_is_no_end(pod: Pod) -> None:
    container = pod.create("sleep 100")
    status = container.status
    assert status.state == pb.CONTAINER_CREATED
    assert status.created_at > 0
    assert (status.started_at, status.finished_at) == (0, 0)
    container.start()
    status = container.status
    assert status.state == pb.CONTAINER_RUNNING
    assert status.started_at >= status.created_at
    assert status.finished_at == 0


def test_out_of_memory(pod: Pod) -> None:
    container = pod.run("tail /dev/zero", linux=limited(memory_limit_in_bytes=16 << 20))
    status = container.status
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


def test_a_child_out_of_memory_does_not_end_a_container_that_copes(pod: Pod) -> None:
    script = "tail /dev/zero; echo it said $?; exit 0"
    container = pod.run(script, linux=limited(memory_limit_in_bytes=16 << 20))
    assert container.status.exit_code == 0
    assert "it said 137" in container.output


def test_stop_sends_the_signal_and_waits(pod: Pod) -> None:
    container = pod.start(ENDS_AT_SIGTERM)
    container.wait_output("ready")
    began = time.monotonic()
    container.stop(timeout=30)
    assert time.monotonic() - began < 10
    status = container.status
    assert (status.state, status.exit_code, status.reason) == (pb.CONTAINER_EXITED, 7, "Error")
    assert container.output.splitlines() == ["ready", "bye"]


def test_stop_kills_after_the_grace_period(pod: Pod) -> None:
    container = pod.start(IGNORES_SIGTERM)
    container.wait_output("ready")
    began = time.monotonic()
    container.stop(timeout=1)
    assert 0.9 < time.monotonic() - began < 8
    assert (container.status.state, container.status.exit_code) == (pb.CONTAINER_EXITED, 137)


def test_without_grace_it_is_killed_at_once(pod: Pod) -> None:
    container = pod.start(ENDS_AT_SIGTERM)
    container.wait_output("ready")
    container.stop(timeout=0)
    assert container.status.exit_code == 137
    assert container.output == "ready"


def test_a_second_stop_shortens_the_grace_period(pod: Pod) -> None:
    container = pod.start(IGNORES_SIGTERM)
    container.wait_output("ready")
    patient = threading.Thread(target=container.stop, args=(100,))
    began = time.monotonic()
    patient.start()
    container.stop(timeout=1)
    patient.join(10)
    assert not patient.is_alive()
    assert time.monotonic() - began < 10
    assert container.status.exit_code == 137


def test_the_stop_signal_is_sent_once(pod: Pod) -> None:
    container = pod.start("trap 'echo signal' TERM; echo ready; while :; do sleep 0.05; done")
    container.wait_output("ready")
    callers = [threading.Thread(target=container.stop, args=(2,)) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert container.output.splitlines() == ["ready", "signal"]


def test_the_containers_own_stop_signal(pod: Pod) -> None:
    container = pod.start(
        "trap 'exit 5' USR1; trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done",
        stop_signal=pb.SIGUSR1,
    )
    assert container.status.stop_signal == pb.SIGUSR1
    container.wait_output("ready")
    container.stop(timeout=30)
    assert container.status.exit_code == 5


def test_stop_takes_every_process_of_the_container(pod: Pod) -> None:
    """Also in the pod's pid namespace, where no process of the container is its pid 1."""
    container = pod.start(
        "setsid sleep 1234 & setsid sh -c 'sleep 1235 & sleep 1236' & echo ready; wait",
        linux=linux(namespace_options=pb.NamespaceOption()),
    )
    witness = pod.start("sleep 1000", linux=linux(namespace_options=pb.NamespaceOption()))
    container.wait_output("ready")
    wait_until(lambda: len(witness.exec("pgrep", "-f", "^sleep 123").stdout.split()) == 3, "three sleeps")
    container.stop()
    assert witness.exec("pgrep", "-f", "^sleep 123").stdout == b""
    assert witness.status.state == pb.CONTAINER_RUNNING


def test_stop_of_one_that_never_ran_or_has_ended(pod: Pod) -> None:
    created = pod.create("true")
    created.stop(timeout=5)
    assert created.status.state == pb.CONTAINER_CREATED
    ended = pod.run("exit 4")
    ended.stop(timeout=5)
    assert ended.status.exit_code == 4


def failed_start(container: Container) -> tuple[grpc.StatusCode, str]:
    """A start that is refused leaves the container exited as the kubelet expects; answers code and text."""
    code, text = refusal(container.start)
    status = container.status
    assert (status.state, status.exit_code, status.reason) == (pb.CONTAINER_EXITED, 128, "StartError")
    assert status.message == text
    assert status.finished_at > 0
    return code, text


@pytest.mark.parametrize(
    "command", [["/bin/nothing-here"], ["nothing-on-the-path"], ["/etc/passwd"], ["/etc"]]
)
def test_a_command_that_cannot_be_executed(pod: Pod, command: list[str]) -> None:
    _, text = failed_start(pod.create(command))
    assert command[0] in text
    assert re.search("not found|no such file|permission denied", text)


def test_a_working_folder_that_is_a_file(pod: Pod) -> None:
    _, text = failed_start(pod.create("true", working_dir="/etc/passwd"))
    assert "/etc/passwd" in text
    assert "ENOTDIR" in text


def test_a_user_that_the_image_does_not_know(pod: Pod) -> None:
    code, text = refusal(lambda: pod.create("true", linux=linux(run_as_username="nobody-knows")))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "nobody-knows" in text
    assert pod.cri.containers(pod_sandbox_id=pod.id) == set()


def test_after_a_failed_start_nothing_runs_and_the_next_attempt_does(pod: Pod) -> None:
    failed_start(pod.create(["/missing"], metadata=pb.ContainerMetadata(name="same")))
    second = pod.run("echo again", metadata=pb.ContainerMetadata(name="same", attempt=1))
    assert second.status.exit_code == 0
    assert second.output == "again"


def test_attempts_share_a_log_file_when_asked_to(pod: Pod) -> None:
    for attempt in range(3):
        pod.run(
            f"echo attempt {attempt}",
            metadata=pb.ContainerMetadata(name="again", attempt=attempt),
            log_path="again.log",
        )
    text = (Path(pod.config.log_directory) / "again.log").read_text()
    assert [line.split(" ", 3)[3] for line in text.splitlines()] == [f"attempt {n}" for n in range(3)]
    assert len(pod.cri.containers(pod_sandbox_id=pod.id)) == 3


def test_long_and_unfinished_lines(pod: Pod) -> None:
    container = pod.run("head -c 40000 /dev/zero | tr '\\0' x; echo; printf 'no end'; printf err >&2")
    out = [line for line in container.log if line.stream == "stdout"]
    assert [line.tag for line in out] == ["P", "P", "F", "P"]
    assert "".join(line.text for line in out[:3]) == "x" * 40000
    assert out[3].text == "no end"
    assert [(line.tag, line.text) for line in container.log if line.stream == "stderr"] == [("P", "err")]
    times = [line.time for line in container.log]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d)", one) for one in times)
    assert times == sorted(times)


def test_without_a_log_path_nothing_is_written(pod: Pod) -> None:
    container = pod.run("echo lost", log_path="")
    assert container.status.log_path == ""
    assert not list(Path(pod.config.log_directory).glob("*"))

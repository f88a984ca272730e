"""ExecSync: a command in a running container, its output and its end."""

from __future__ import annotations

import time
from pathlib import Path

import grpc
import pytest

from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Container, Pod, limited, linux, refusal

pytestmark = pytest.mark.root

LIMIT = 16 << 20


@pytest.fixture
def container(pod: Pod) -> Container:
    return pod.start("trap 'exit 0' TERM; while :; do sleep 0.1; done")


def test_exit_code_and_each_stream_apart(container: Container) -> None:
    answer = container.exec("echo out; echo err >&2; exit 3")
    assert (answer.stdout, answer.stderr, answer.exit_code) == (b"out\n", b"err\n", 3)


def test_a_signal_is_an_exit_code(container: Container) -> None:
    assert container.exec("kill -KILL $$").exit_code == 137


def test_bytes_come_as_they_are(container: Container) -> None:
    assert container.exec("printf '\\000\\377\\n\\r\\n'").stdout == b"\0\xff\n\r\n"


def test_it_has_what_the_container_has(pod: Pod) -> None:
    container = pod.start(
        "sleep 100",
        working_dir="/tmp",
        envs=[pb.KeyValue(key="COLOUR", value=b"blue")],
        linux=linux(
            run_as_user=pb.Int64Value(value=33),
            supplemental_groups=[4711],
            no_new_privs=True,
            capabilities=pb.Capability(drop_capabilities=["ALL"]),
        ),
    )
    told = container.tell(
        "pwd; echo $COLOUR; id -u; id -G; grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status"
    )
    assert told.split() == [
        *("/tmp", "blue", "33", "33", "4711"),
        *("CapBnd:", "0000000000000000", "NoNewPrivs:", "1", "Seccomp:", "2"),
    ]


def test_it_is_in_the_containers_namespaces_and_cgroup(container: Container) -> None:
    for namespace in ("mnt", "pid", "net", "ipc", "uts"):
        same = f"test $(readlink /proc/self/ns/{namespace}) = $(readlink /proc/1/ns/{namespace})"
        assert container.exec(same).exit_code == 0, namespace


def test_a_command_that_is_not_there(container: Container) -> None:
    code, text = refusal(lambda: container.exec("/bin/nothing-here", "x"))
    assert "/bin/nothing-here" in text
    assert code not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert container.exec("true").exit_code == 0


@pytest.mark.parametrize("stream", ["", " >&2"])
def test_output_is_cut_at_the_limit_and_drained(container: Container, stream: str) -> None:
    began = time.monotonic()
    answer = container.exec(f"head -c {LIMIT + (1 << 20)} /dev/zero{stream}; exit 9", timeout=60)
    assert answer.exit_code == 9, "the command was not blocked by a full pipe"
    assert {len(answer.stdout), len(answer.stderr)} == {LIMIT, 0}
    assert time.monotonic() - began < 30


def test_a_timeout_kills_it_with_all_its_children(container: Container) -> None:
    script = "sleep 4321 & setsid sh -c 'sleep 4322 & setsid sleep 4323 & wait' & wait"
    began = time.monotonic()
    code, text = refusal(lambda: container.exec(script, timeout=1))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "1 s" in text
    assert time.monotonic() - began < 8
    assert container.exec("pgrep", "-f", "^sleep 432").stdout == b""
    assert container.status.state == pb.CONTAINER_RUNNING


def test_a_client_that_leaves_ends_its_command(container: Container) -> None:
    request = pb.ExecSyncRequest(container_id=container.id, cmd=["sleep", "4331"])
    call = container.cri.runtime.ExecSync.future(request)
    wait_until(lambda: container.exec("pgrep", "-f", "^sleep 4331").stdout, "the exec to run")
    call.cancel()
    wait_until(lambda: not container.exec("pgrep", "-f", "^sleep 4331").stdout, "the exec to be killed")


def test_a_child_in_the_background_does_not_hold_the_answer(container: Container) -> None:
    began = time.monotonic()
    answer = container.exec("echo first; sleep 4341 & exit 0")
    assert (answer.stdout, answer.exit_code) == (b"first\n", 0)
    assert time.monotonic() - began < 8
    assert container.exec("pgrep", "-f", "^sleep 4341").stdout, "it is the container's process now"


def test_what_an_exec_left_ends_with_its_container(pod: Pod) -> None:
    shared = linux(namespace_options=pb.NamespaceOption())
    container, witness = pod.start("sleep 100", linux=shared), pod.start("sleep 100", linux=shared)
    container.exec("sleep 4351 >/dev/null 2>&1 & exit 0")
    assert witness.exec("pgrep", "-f", "^sleep 4351").stdout
    container.stop()
    assert witness.exec("pgrep", "-f", "^sleep 4351").stdout == b""


def test_many_at_once(container: Container) -> None:
    requests = [
        pb.ExecSyncRequest(container_id=container.id, cmd=["sh", "-c", f"echo {n}; exit {n}"], timeout=30)
        for n in range(24)
    ]
    calls = [container.cri.runtime.ExecSync.future(request) for request in requests]
    answers = [call.result() for call in calls]
    assert [(int(answer.stdout), answer.exit_code) for answer in answers] == [(n, n) for n in range(24)]


def test_the_container_may_end_meanwhile(container: Container) -> None:
    request = pb.ExecSyncRequest(container_id=container.id, cmd=["sleep", "100"])
    call = container.cri.runtime.ExecSync.future(request)
    wait_until(lambda: container.exec("pgrep", "-f", "^sleep 100").stdout, "the exec to run")
    container.stop()
    assert call.result(timeout=10).exit_code == 137


def test_the_pod_may_end_meanwhile(pod: Pod, container: Container) -> None:
    request = pb.ExecSyncRequest(container_id=container.id, cmd=["sleep", "100"])
    call = container.cri.runtime.ExecSync.future(request)
    wait_until(lambda: container.exec("pgrep", "-f", "^sleep 100").stdout, "the exec to run")
    pod.remove()
    try:
        assert call.result(timeout=10).exit_code == 137
    except grpc.RpcError as error:
        assert "pod" in (error.details() or "")


def test_its_memory_counts_as_the_containers(pod: Pod) -> None:
    container = pod.start("sleep 100", linux=limited(memory_limit_in_bytes=16 << 20))
    assert container.exec("tail /dev/zero").exit_code == 137
    assert container.status.state == pb.CONTAINER_RUNNING


def test_a_log_is_reopened_where_it_was(pod: Pod) -> None:
    container = pod.start("n=0; while :; do n=$((n+1)); echo line $n; sleep 0.01; done")
    container.wait_output("line 5")
    path = Path(container.status.log_path)
    rotated = path.with_suffix(".1")
    path.rename(rotated)
    container.cri.runtime.ReopenContainerLog(pb.ReopenContainerLogRequest(container_id=container.id))
    assert path.exists(), "it is there when the call returns"
    wait_until(lambda: container.log, "lines in the new file")
    container.stop()
    lines = [line.split(" ", 3)[3] for line in (rotated.read_text() + path.read_text()).splitlines()]
    assert lines == [f"line {n + 1}" for n in range(len(lines))], "none is lost, none is told twice"

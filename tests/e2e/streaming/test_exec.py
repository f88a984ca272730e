"""Exec with a client at its other end."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path

import grpc
import pytest

from harness.daemon import Daemon
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Container, Cri, Pod, linux, refusal
from tests.e2e.lifecycle.conftest import Shared
from tests.e2e.streaming.client import StreamClient

pytestmark = pytest.mark.root

BIG = 100 << 20


def test_streams_apart_and_the_exit_code(client: StreamClient, container: Container) -> None:
    done = client.run("exec", container.id, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert done.stdout == b"out\n"
    assert done.stderr.startswith(b"err\n")
    assert b"exit code 3" in done.stderr
    assert done.returncode != 0
    assert client.run("exec", container.id, "true").returncode == 0


def test_input_to_its_end(client: StreamClient, container: Container) -> None:
    done = client.run("exec", "-i", container.id, "cat", given=b"hi\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"hi\n", b"", 0)
    done = client.run("exec", "-i", container.id, "sh", "-c", "wc -c; echo after", given=b"")
    assert done.stdout == b"0\nafter\n"


def test_without_interest_in_input_there_is_none(client: StreamClient, container: Container) -> None:
    assert client.run("exec", container.id, "wc", "-c", given=b"lost").stdout == b"0\n"


def test_a_command_that_does_not_read_its_input(client: StreamClient, container: Container) -> None:
    done = client.run("exec", "-i", container.id, "echo", "done", given=bytes(8 << 20))
    assert (done.stdout, done.returncode) == (b"done\n", 0)


def test_much_output(client: StreamClient, container: Container) -> None:
    script = f"head -c {BIG} /dev/urandom | tee /tmp/big; echo; sha256sum /tmp/big >&2; rm /tmp/big"
    with client.start("exec", container.id, "sh", "-c", script) as running:
        output = running.rest()
        assert running.wait() == 0
        told = running.stderr().split()[0].decode()
    assert len(output) == BIG + 1
    assert hashlib.sha256(output[:-1]).hexdigest() == told


def test_much_input(client: StreamClient, container: Container) -> None:
    given = os.urandom(BIG)
    done = client.run("exec", "-i", container.id, "sha256sum", given=given)
    assert done.stdout.split()[0].decode() == hashlib.sha256(given).hexdigest()


def test_a_command_that_is_not_there(client: StreamClient, container: Container) -> None:
    done = client.run("exec", container.id, "nothing-here")
    assert done.returncode != 0
    said = done.stderr.replace(b"\\", b"")
    assert b'error executing command in container: exec: "nothing-here": executable file not found' in said
    done = client.run("exec", container.id, "/etc")
    assert b'exec: "/etc": permission denied' in done.stderr.replace(b"\\", b"")


def test_it_has_what_the_container_has(client: StreamClient, pod: Pod) -> None:
    container = pod.start(
        "sleep 100",
        working_dir="/tmp",
        envs=[pb.KeyValue(key="COLOUR", value=b"blue")],
        linux=linux(run_as_user=pb.Int64Value(value=33)),
    )
    done = client.run("exec", container.id, "sh", "-c", "pwd; echo $COLOUR $TERM; id -u")
    assert done.stdout.split() == [b"/tmp", b"blue", b"33"]


def test_a_child_in_the_background_does_not_hold_the_end(client: StreamClient, container: Container) -> None:
    began = time.monotonic()
    done = client.run("exec", container.id, "sh", "-c", "echo first; sleep 5341 & exit 4")
    assert done.stdout == b"first\n"
    assert b"exit code 4" in done.stderr
    assert time.monotonic() - began < 8
    assert container.exec("pgrep", "-f", "^sleep 5341").stdout, "it is the container's process now"


def test_a_client_that_is_killed_leaves_nothing(
    client: StreamClient, container: Container, node: Daemon, shared: Shared
) -> None:
    shared.cri.wait_pools_full()
    before = node.snapshot()
    script = "sleep 5351 & setsid sleep 5352 & echo on; while :; do echo more; done"
    for _ in range(3):
        with client.start("exec", "-i", container.id, "sh", "-c", script) as running:
            running.read_until(b"more\n")
    wait_until(lambda: not container.exec("pgrep", "-f", "^sleep 535").stdout, "the exec to be killed")
    node.wait_for_no_traces(before)


def test_a_client_that_is_killed_while_all_is_quiet(client: StreamClient, container: Container) -> None:
    with client.start("exec", "-i", container.id, "sh", "-c", "echo on; exec sleep 5361") as running:
        running.read_until(b"on\n")
    wait_until(lambda: not container.exec("pgrep", "-f", "^sleep 5361").stdout, "the exec to be killed")


def test_a_terminal(client: StreamClient, container: Container) -> None:
    with client.terminal("exec", container.id, "sh", width=91, height=33) as running:
        running.write(b"tty; echo $TERM; stty size\n")
        assert b"/dev/pts/0\r\nxterm\r\n33 91\r\n" in running.read_until(b"33 91\r\n")
        running.forget()
        running.resize(57, 11)
        running.write(b"until test \"$(stty size)\" = '11 57'; do sleep 0.1; done; echo res''ized\n")
        running.read_until(b"resized\r\n")
        running.write(b"echo err >&2; exit 5\n")
        assert b"err\r\n" in running.rest()
        assert running.wait() != 0
        assert b"exit code 5" in running.stderr()


def test_a_terminals_whole_output_comes(client: StreamClient, container: Container) -> None:
    with client.terminal("exec", container.id, "seq", "1", "20000") as running:
        lines = running.rest().split()
    assert lines == [str(number).encode() for number in range(1, 20001)]


def test_a_terminals_client_that_is_killed(client: StreamClient, container: Container) -> None:
    script = "trap '' HUP; echo on; sleep 5371; sleep 5372"
    with client.terminal("exec", container.id, "sh", "-c", script) as running:
        running.read_until(b"on")
    wait_until(lambda: not container.exec("pgrep", "-f", "^sleep 537").stdout, "the exec to be killed")


def test_many_at_once(client: StreamClient, container: Container) -> None:
    def begin(number: int) -> subprocess.Popen[bytes]:
        command = client.command("exec", container.id, "sh", "-c", f"seq 1 5000; exit {number}")
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    wanted = "".join(f"{number}\n" for number in range(1, 5001)).encode()
    for number, process in enumerate([begin(number) for number in range(8)]):
        stdout, stderr = process.communicate(timeout=30)
        assert stdout == wanted
        assert number == 0 or f"exit code {number}".encode() in stderr


def test_a_slow_client_holds_up_its_own_command_only(client: StreamClient, container: Container) -> None:
    script = f"head -c {16 << 20} /dev/zero; touch /tmp/done-{client.transport}"
    with client.start("exec", container.id, "sh", "-c", script) as running:
        assert client.run("exec", container.id, "echo", "quick").stdout == b"quick\n"
        assert container.exec("test", "-e", f"/tmp/done-{client.transport}").exit_code == 1
        assert len(running.rest()) == 16 << 20
        assert running.wait() == 0


def test_the_container_may_end_meanwhile(client: StreamClient, container: Container) -> None:
    with client.start("exec", container.id, "sh", "-c", "echo on; sleep 100") as running:
        running.read_until(b"on\n")
        container.stop()
        assert running.wait() != 0
        assert b"exit code 137" in running.stderr()


def test_the_pod_may_end_meanwhile(client: StreamClient, pod: Pod, container: Container) -> None:
    with client.start("exec", container.id, "sh", "-c", "echo on; sleep 100") as running:
        running.read_until(b"on\n")
        pod.remove()
        assert running.wait() != 0


def exec_request(container_id: str) -> pb.ExecRequest:
    return pb.ExecRequest(container_id=container_id, cmd=["true"], stdout=True)


def test_only_what_runs_can_be_executed_in(cri: Cri, pod: Pod) -> None:
    code, text = refusal(lambda: cri.runtime.Exec(exec_request("none")))
    assert (code, "none" in text) == (grpc.StatusCode.NOT_FOUND, True)
    created = pod.create("true")
    code, _ = refusal(lambda: cri.runtime.Exec(exec_request(created.id)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    created.start()
    created.wait_exited()
    code, _ = refusal(lambda: cri.runtime.Exec(exec_request(created.id)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION


def test_a_url_is_loopback_and_of_one_use(cri: Cri, container: Container) -> None:
    first, second = (cri.runtime.Exec(exec_request(container.id)).url for _ in range(2))
    assert first.startswith("http://127.0.0.1:")
    assert first.rpartition("/")[0].endswith("/exec")
    assert first != second


def test_what_begins_after_the_containers_end_is_told(spdy: StreamClient, pod: Pod, tmp_path: Path) -> None:
    container = pod.start("sleep 100")
    container.stop()
    done = spdy.run("exec", container.id, "true")
    assert done.returncode != 0
    assert b"it is exited" in done.stderr


def test_nothing_is_left_of_many(client: StreamClient, container: Container, shared: Shared) -> None:
    shared.cri.wait_pools_full()
    before = shared.daemon.snapshot()
    for number in range(10):
        assert client.run("exec", "-i", container.id, "cat", given=b"x").stdout == b"x", number
    shared.daemon.wait_for_no_traces(before)

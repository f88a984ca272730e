"""`phantom exec`, `phantom attach` and `phantom logs`, from pipes and from a terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest

from harness.daemon import Daemon
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Container, Pod
from tests.e2e.streaming.phantom_client import PhantomClient

pytestmark = pytest.mark.root


@pytest.fixture
def phantom(node: Daemon) -> PhantomClient:
    return PhantomClient(node.endpoint)


def test_output_apart_and_exit_code(phantom: PhantomClient, container: Container) -> None:
    done = phantom.run("exec", container.id, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert phantom.run("exec", container.id[:12], "true").returncode == 0


def test_killed_absent_and_not_executable(phantom: PhantomClient, container: Container) -> None:
    assert phantom.run("exec", container.id, "sh", "-c", "kill -9 $$").returncode == 137
    absent = phantom.run("exec", container.id, "/no/such/thing")
    assert absent.returncode == 127
    assert b"/no/such/thing" in absent.stderr
    assert phantom.run("exec", container.id, "/etc").returncode == 126
    assert phantom.run("exec", "nonsense", "true").returncode == 1


def test_input_from_a_pipe_a_file_and_nowhere(phantom: PhantomClient, container: Container) -> None:
    much = os.urandom(3 << 20)
    assert phantom.run("exec", "-i", container.id, "cat", given=much).stdout == much
    with Path("/etc/passwd").open("rb") as file:
        command = phantom.command("exec", "-i", container.id, "cat")
        done = subprocess.run(command, stdin=file, capture_output=True, check=True, timeout=60)
    assert done.stdout == Path("/etc/passwd").read_bytes()
    command = phantom.command("exec", "-i", container.id, "sh", "-c", "cat; echo over")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60)
    assert done.stdout == b"over\n"


def test_without_i_the_input_is_left_alone(phantom: PhantomClient, container: Container) -> None:
    assert phantom.run("exec", container.id, "cat", given=b"not for it").stdout == b""


def test_an_interrupt_ends_the_command_too(phantom: PhantomClient, container: Container) -> None:
    with phantom.start("exec", container.id, "sh", "-c", "echo up; exec sleep 987654") as running:
        running.read_until(b"up\n")
        running.process.send_signal(signal.SIGINT)
        assert running.wait() == 130
    wait_until(lambda: b"987654" not in container.exec("ps").stdout, "the command to be killed")


def test_a_terminal(phantom: PhantomClient, container: Container) -> None:
    with phantom.terminal("exec", container.id, "sh", width=91, height=33) as running:
        before = termios.tcgetattr(running.stdin)
        running.read_until(b"# ")
        assert termios.tcgetattr(running.stdin) != before
        running.write(b"tty; stty size\r")
        running.read_until(b"/dev/pts/")
        running.read_until(b"33 91\r\n")
        running.forget()
        running.resize(120, 40)
        running.write(b"until test \"$(stty size)\" = '40 120'; do sleep 0.1; done; echo si''zed\r")
        running.read_until(b"sized\r\n")
        running.forget()
        running.write(
            b"sh -c \"trap 'echo cau''ght; exit' INT; echo re''ady; while :; do sleep 0.1; done\"\r"
        )
        running.read_until(b"ready\r\n")
        running.write(b"\x03")  # Ctrl-C is for what runs in there
        running.read_until(b"caught\r\n")
        running.write(b"exit 5\r")
        assert running.wait() == 5
        assert termios.tcgetattr(running.stdin) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_terminal_is_given_back_after_a_signal(
    phantom: PhantomClient, container: Container, number: signal.Signals
) -> None:
    with phantom.terminal("exec", container.id, "sh") as running:
        before = termios.tcgetattr(running.stdin)
        running.read_until(b"# ")
        running.process.send_signal(number)
        assert running.wait() == 130
        assert termios.tcgetattr(running.stdin) == before


def test_attach_shows_takes_input_and_answers_the_exit_code(phantom: PhantomClient, pod: Pod) -> None:
    container = pod.start("echo ready; read x; echo out $x; echo err >&2; exit 9", stdin=True)
    container.wait_output("ready")
    with phantom.start("attach", container.id) as running:
        running.write(b"one\n")
        assert running.wait() == 9
        assert running.rest() == b"out one\n"
        assert running.stderr() == b"err\n"


def test_attach_without_input_looks_on(phantom: PhantomClient, pod: Pod) -> None:
    container = pod.start("while sleep 0.1; do echo tick; done", stdin=True)
    with phantom.start("attach", "--no-stdin", container.id) as running:
        running.read_until(b"tick\ntick\n")
        running.process.send_signal(signal.SIGINT)
        assert running.wait() == 130
    assert container.status.state == pb.CONTAINER_RUNNING


def test_detach_keys_leave_the_container_running(phantom: PhantomClient, pod: Pod) -> None:
    container = pod.start(["sh"], stdin=True, tty=True)
    for word in (b"first", b"second"):
        with phantom.terminal("attach", container.id) as running:
            before = termios.tcgetattr(running.stdin)
            running.read_until(b"# ")
            running.write(b"echo he''re " + word + b"\r")
            running.read_until(b"here " + word)
            running.write(b"\x10")
            running.write(b"\x11")
            assert running.wait() == 0
            assert termios.tcgetattr(running.stdin) == before
    assert container.status.state == pb.CONTAINER_RUNNING


def test_logs(phantom: PhantomClient, pod: Pod) -> None:
    container = pod.run("echo one; echo two >&2; echo three; printf four")
    done = phantom.run("logs", container.id)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"one\nthree\nfour", b"two\n")
    assert phantom.run("logs", "--tail", "2", container.id).stdout == b"three\nfour"
    stamped = phantom.run("logs", "-t", container.id).stdout.splitlines()
    assert [line.split(b" ")[1] for line in stamped] == [b"one", b"three", b"four"]
    assert stamped[0].startswith(b"20")
    assert phantom.run("logs", "--since", "1h", container.id).stdout == b"one\nthree\nfour"
    assert phantom.run("logs", "--since", "2100-01-01", container.id).stdout == b""


def test_logs_are_followed_through_rotation_to_the_end(phantom: PhantomClient, pod: Pod) -> None:
    container = pod.start("echo first; read x; echo second; read x; echo third; sleep 0.5", stdin=True)
    container.wait_output("first")
    with (
        phantom.start("logs", "-f", container.id) as running,
        phantom.start("attach", container.id) as typing,
    ):
        running.read_until(b"first\n")
        typing.write(b"\n")
        running.read_until(b"second\n")
        path = Path(container.status.log_path)
        path.rename(path.with_suffix(".old"))
        container.cri.runtime.ReopenContainerLog(pb.ReopenContainerLogRequest(container_id=container.id))
        typing.write(b"\n")
        started = time.monotonic()
        assert running.rest() == b"first\nsecond\nthird\n"
        assert running.wait() == 0
        assert time.monotonic() - started < 10

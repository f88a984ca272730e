"""`phantom run -i` and `-it`: a new pod with its user at the other end."""

from __future__ import annotations

import subprocess
import termios
from pathlib import Path

import pytest

from harness.daemon import Daemon
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Cri
from tests.e2e.streaming.phantom_client import PhantomClient

pytestmark = pytest.mark.root


class Runner:
    def __init__(self, phantom: PhantomClient, cri: Cri, image: str, logs: Path) -> None:
        self.phantom, self.cri, self._image, self._logs = phantom, cri, image, logs

    def words(self, *flags_and_command: str) -> tuple[str, ...]:
        """What stands behind "--" follows the image."""
        at = flags_and_command.index("--")
        flags, command = flags_and_command[:at], flags_and_command[at + 1 :]
        return (f"--log-dir={self._logs}", "--pull=never", *flags, self._image, *command)

    def run(self, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return self.phantom.run("run", *self.words(*words), given=given)

    def nothing_stays(self) -> bool:
        return not self.cri.pods() and not list(self._logs.iterdir())


@pytest.fixture
def runner(node: Daemon, cri: Cri, busybox_image: str, tmp_path: Path) -> Runner:
    return Runner(PhantomClient(node.endpoint), cri, busybox_image, tmp_path)


def test_input_from_a_pipe(runner: Runner) -> None:
    done = runner.run("--rm", "-i", "--", "sh", "-c", "wc -c; echo err >&2; exit 3", given=bytes(2 << 20))
    assert (done.returncode, done.stdout, done.stderr) == (3, b"%d\n" % (2 << 20), b"err\n")
    assert runner.nothing_stays()


def test_input_that_nobody_waits_for(runner: Runner) -> None:
    done = runner.run("--rm", "-i", "--", "true", given=bytes(1 << 20))
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_terminal_without_input(runner: Runner) -> None:
    done = runner.run("--rm", "-t", "--", "sh", "-c", "test -t 1 && echo a terminal")
    assert (done.returncode, done.stdout.split()) == (0, [b"a", b"terminal"])


def test_at_a_terminal(runner: Runner) -> None:
    words = runner.words("--rm", "--", "sh", "-c", "echo hello; exec sh")
    with runner.phantom.terminal("run", *words, width=77, height=22) as running:
        before = termios.tcgetattr(running.stdin)
        running.read_until(b"# ")
        running.write(b"stty size; exit 6\r")
        assert running.wait() == 6
        seen = bytes(running.rest())
        assert seen.count(b"hello\r\n") == 1
        assert b"22 77\r\n" in seen
        assert termios.tcgetattr(running.stdin) == before
    assert runner.nothing_stays()


def test_what_ends_at_once_is_seen_whole(runner: Runner) -> None:
    for _ in range(5):
        with runner.phantom.terminal("run", *runner.words("--rm", "--", "echo", "quick")) as running:
            assert running.wait() == 0
            assert running.rest() == b"quick\r\n"


def test_detached_it_goes_on(runner: Runner) -> None:
    with runner.phantom.terminal("run", *runner.words("--rm", "--name=left", "--", "sh")) as running:
        before = termios.tcgetattr(running.stdin)
        running.read_until(b"# ")
        running.write(b"x=kept\r\x10\x11")
        assert running.wait() == 0
        assert termios.tcgetattr(running.stdin) == before
        assert b"detached" in running.stderr()
    with runner.phantom.terminal("attach", "left") as running:
        running.write(b"echo $x; exit 4\r")
        running.read_until(b"kept\r\n")
        assert running.wait() == 4
    (container_id,) = runner.cri.containers()
    request = pb.ContainerStatusRequest(container_id=container_id)
    wait_until(
        lambda: runner.cri.runtime.ContainerStatus(request).status.state == pb.CONTAINER_EXITED, "its end"
    )
    assert runner.phantom.run("rm", "left").returncode == 0

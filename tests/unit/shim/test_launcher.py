"""The command that containerd runs, with a daemon at its other end and without one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from phantom_cri.api.containerd import task_pb2
from phantom_cri.fragments import identify
from phantom_cri.native.build import LAUNCHER, SHIM
from shim.bundle import note_init

ARGUMENTS = ["-namespace", "k8s.io", "-address", "/a", "-publish-binary", "", "-id", "one"]


def launch(
    socket_path: Path, folder: Path, *more: str, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    environment = {"PHANTOM_SHIM_SOCKET": str(socket_path), "TTRPC_ADDRESS": "/c.ttrpc"}
    command = [str(SHIM / LAUNCHER), *ARGUMENTS, *more]
    return subprocess.run(
        command, cwd=folder, env=environment, input=given, capture_output=True, timeout=20, check=False
    )


class Answering:
    """A daemon that keeps the one request that it gets, and sends `answer`."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self.request = b""
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        peer, _ = self._socket.accept()
        with peer, self._socket:
            while piece := peer.recv(1 << 16):
                self.request += piece
            peer.sendall(self._answer)

    def join(self) -> bytes:
        self._thread.join(10)
        return self.request


def test_all_is_handed_over_and_the_answer_printed(tmp_path: Path) -> None:
    given = bytes(range(256)) * 300
    daemon = Answering(tmp_path / "s", b"\0unix:///address\x00\xff")
    done = launch(tmp_path / "s", tmp_path, "start", given=given)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"unix:///address\x00\xff", b"")
    strings = [*ARGUMENTS, "start", str(tmp_path), "/c.ttrpc"]
    assert daemon.join() == b"".join(f"{text}\0".encode() for text in (len(strings), *strings)) + given


def test_a_refusal_goes_to_stderr_with_its_status(tmp_path: Path) -> None:
    daemon = Answering(tmp_path / "s", b"\1config.json: vm: not supported by this runtime\n")
    done = launch(tmp_path / "s", tmp_path, "start")
    daemon.join()
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"config.json: vm: not supported by this runtime\n"


def test_a_daemon_that_dies_is_asked_again_when_it_is_back(tmp_path: Path) -> None:
    first = Answering(tmp_path / "s", b"")
    with ThreadPoolExecutor() as pool:
        launched = pool.submit(launch, tmp_path / "s", tmp_path, "start")
        request = first.join()
        (tmp_path / "s").unlink()
        second = Answering(tmp_path / "s", b"\0unix:///address")
        done = launched.result(10)
    assert (done.returncode, done.stdout) == (0, b"unix:///address")
    assert second.join() == request


def test_without_a_daemon_a_start_fails_and_names_the_socket(tmp_path: Path) -> None:
    done = launch(tmp_path / "nobody", tmp_path, "start")
    assert (done.returncode, done.stdout) == (1, b"")
    assert str(tmp_path / "nobody").encode() in done.stderr


def test_stdin_has_a_limit(tmp_path: Path) -> None:
    done = launch(tmp_path / "nobody", tmp_path, "start", given=b"x" * ((1 << 20) + 1))
    assert done.returncode == 1
    assert b"stdin" in done.stderr


@pytest.mark.parametrize("is_right", [True, False])
def test_without_a_daemon_delete_kills_the_task_and_no_other(tmp_path: Path, is_right: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as task:
        pidfd = os.pidfd_open(task.pid)
        process = identify(pidfd)
        os.close(pidfd)
        assert process is not None
        later = type(process)(process.pid, process.start_time + 1)
        note_init(str(tmp_path), process if is_right else later)
        done = launch(tmp_path / "nobody", tmp_path, "-bundle", str(tmp_path), "delete")
        assert (done.returncode, done.stderr) == (0, b"")
        response = task_pb2.DeleteResponse.FromString(done.stdout)
        assert (response.pid, response.exit_status) == (task.pid, 137)
        assert response.exited_at.seconds > 1_000_000_000
        assert task.poll() == (-signal.SIGKILL if is_right else None)
        task.kill()


def test_delete_of_a_task_that_was_never_made(tmp_path: Path) -> None:
    done = launch(tmp_path / "nobody", tmp_path, "delete")
    response = task_pb2.DeleteResponse.FromString(done.stdout)
    assert (done.returncode, response.pid, response.exit_status) == (0, 0, 137)

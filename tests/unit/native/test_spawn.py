"""Births without root: any program stands for the fragment where no namespace is asked for."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from phantom_cri import native


@pytest.fixture
def fds(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A socket and a directory, as a fragment is born with."""
    state = os.open(tmp_path, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        yield listener.fileno(), state
    os.close(state)


def end(pid: int, pidfd: int) -> int:
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)
    assert result is not None
    assert result.si_pid == pid
    return result.si_status


def program(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def test_a_program_runs(fds: tuple[int, int]) -> None:
    for path, code in (("/bin/true", 0), ("/bin/false", 1)):
        binary = program(path)
        pid, pidfd = native.spawn(binary, "title", 0, *fds)
        os.close(binary)
        assert not os.get_inheritable(pidfd)
        assert end(pid, pidfd) == code


def test_its_complaints_go_where_they_should(fds: tuple[int, int], tmp_path: Path) -> None:
    complaints = os.open(tmp_path / "complaints", os.O_WRONLY | os.O_CREAT)
    binary = program("/bin/sleep")
    assert end(*native.spawn(binary, "sleep", 0, *fds, stderr_fd=complaints)) == 1
    assert b"missing operand" in (tmp_path / "complaints").read_bytes()
    os.close(binary)
    os.close(complaints)


@pytest.mark.parametrize(
    ("binary", "listen", "flags", "error"),
    [
        ("/etc/passwd", None, 0, errno.EACCES),
        ("/bin/true", 9999, 0, errno.EBADF),
        ("/bin/true", None, 0x10000, errno.EINVAL),
    ],
)
def test_failures_leave_nothing(
    fds: tuple[int, int], binary: str, listen: int | None, flags: int, error: int
) -> None:
    opened = program(binary)
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError) as raised:
        native.spawn(opened, "x", flags, fds[0] if listen is None else listen, fds[1])
    assert raised.value.errno == error
    assert sorted(os.listdir("/proc/self/fd")) == before
    with contextlib.suppress(ChildProcessError):  # where no other test has a program running
        assert os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None, "a child is left"
    os.close(opened)


def test_a_bad_binary_fd(fds: tuple[int, int]) -> None:
    with pytest.raises(OSError) as raised:
        native.spawn(9999, "x", 0, *fds)
    assert raised.value.errno == errno.EBADF


def test_many_threads_at_once(fds: tuple[int, int]) -> None:
    binary = program("/bin/true")
    codes: list[int] = []

    def births() -> None:
        for _ in range(20):
            codes.append(end(*native.spawn(binary, "x", 0, *fds)))

    threads = [threading.Thread(target=births) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(binary)
    assert codes == [0] * 160


def test_the_binary_is_sealed_and_cached() -> None:
    memory = native.fragment_binary()
    assert native.fragment_binary() == memory
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    assert fcntl.fcntl(memory, fcntl.F_GET_SEALS) & seals == seals
    assert os.pread(memory, 4, 0) == b"\x7fELF"
    assert not os.get_inheritable(memory)
    with pytest.raises(PermissionError):
        os.pwrite(memory, b"x", 0)


def test_bpf_errors() -> None:
    with pytest.raises(OSError, match="bpf command 9999"):
        native.bpf(9999, bytearray(8))

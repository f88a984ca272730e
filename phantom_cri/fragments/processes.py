"""Processes by pidfd: identifying, opening, reaping, waiting for their end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import NamedTuple

from phantom_cri.errors import NotFound
from phantom_cri.model import ProcessRef


class Started(NamedTuple):
    """A process after its execve. The caller owns the fds; `process`: None if it has already ended.

    console: the master of its pty, or the write end of its stdin pipe; -1 if it has neither.
    started_at: when its execve succeeded, ns since the epoch; 0 from a fragment that does not report it.
    """

    process: ProcessRef | None
    pidfd: int
    console: int = -1
    started_at: int = 0

    def close(self) -> None:
        """Both fds, for a caller that needs neither."""
        os.close(self.pidfd)
        if self.console >= 0:
            os.close(self.console)


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def pid_of(pidfd: int) -> int:
    """The pid in our pid namespace (pidfd_open(2): the line "Pid:" of fdinfo); -1 once it was reaped."""
    text = _read(f"/proc/self/fdinfo/{pidfd}")
    start = text.index(b"\nPid:") + 5
    return int(text[start : text.index(b"\n", start)])


def start_time_of(pid: int) -> int:
    """Field 22 of /proc/PID/stat, in clock ticks since boot. Raises OSError when there is no such process.

    The second field is the program's name in parentheses and may hold any byte, so fields are counted from
    the last ")" (proc_pid_stat(5)).
    """
    text = _read(f"/proc/{pid}/stat")
    return int(text[text.rindex(b")") + 2 :].split(b" ", 20)[19])


def identify(pidfd: int) -> ProcessRef | None:
    """The process of `pidfd`; None if it has ended and was reaped."""
    pid = pid_of(pidfd)
    if pid <= 0:
        return None
    try:
        start_time = start_time_of(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # If the pid had been reused between the two reads, this process would be reaped by now.
    return ProcessRef(pid, start_time) if pid_of(pidfd) == pid else None


def open_process(process: ProcessRef) -> int:
    """A pidfd for exactly this process, not for a later one with the same pid; the caller closes it.

    Raises NotFound when it is gone.
    """
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        raise NotFound(f"process {process.pid} is gone") from None
    if identify(pidfd) != process:
        os.close(pidfd)
        raise NotFound(f"process {process.pid} is gone; its pid was reused")
    return pidfd


def reap(pidfd: int) -> int | None:
    """Reap an ended child: its exit code, or 128 + signal; None if it is not our child (after a restart).

    Raises BlockingIOError if it has not ended.
    """
    try:
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    if ended is None:
        raise BlockingIOError(f"the process of pidfd {pidfd} has not ended")
    return ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status


def watch_death(pidfd: int, on_death: Callable[[int | None], None]) -> Callable[[], None]:
    """Call `on_death` once with the result of `reap` when the process ends; returns a function that stops it.

    The caller keeps the pidfd, and has to keep it open until then.
    """
    loop = asyncio.get_running_loop()

    def unwatch() -> None:
        loop.remove_reader(pidfd)

    def ended() -> None:
        unwatch()
        on_death(reap(pidfd))

    loop.add_reader(pidfd, ended)
    return unwatch

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from harness.waiting import wait_until
from phantom_cri.errors import NotFound
from phantom_cri.fragments import identify, open_process, reap, watch_death
from phantom_cri.fragments.processes import start_time_of
from phantom_cri.model import ProcessRef


@pytest.fixture
def child() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "1000"])


def end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def test_a_later_process_of_the_same_pid_is_another(child: subprocess.Popen[bytes]) -> None:
    start_time = start_time_of(child.pid)
    with pytest.raises(NotFound, match="its pid was reused"):
        open_process(ProcessRef(child.pid, start_time - 1))
    pidfd = open_process(ProcessRef(child.pid, start_time))
    assert identify(pidfd) == ProcessRef(child.pid, start_time)
    end(child)
    assert identify(pidfd) is None
    os.close(pidfd)
    with pytest.raises(NotFound, match="is gone"):
        open_process(ProcessRef(child.pid, start_time))


def test_names_with_parentheses() -> None:
    # The name of a program stands in parentheses in /proc/PID/stat, and may have some itself.
    script = "printf ') 1 (' > /proc/self/comm; read x"
    child = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE)
    try:
        wait_until(lambda: Path(f"/proc/{child.pid}/comm").read_bytes() == b") 1 (\n", "the new name")
        with open(f"/proc/{child.pid}/stat", "rb") as stat:
            expected = int(stat.read().rsplit(b") ", 1)[1].split()[19])
        assert start_time_of(child.pid) == expected > 1
    finally:
        child.communicate(b"\n")


@pytest.mark.parametrize(("how", "status"), [("exit 3", 3), ("kill -TERM $$", 128 + signal.SIGTERM)])
async def test_deaths_are_told_with_their_status(how: str, status: int) -> None:
    child = subprocess.Popen(["sh", "-c", f"read x; {how}"], stdin=subprocess.PIPE)  # noqa: ASYNC220
    pidfd = os.pidfd_open(child.pid)
    with pytest.raises(BlockingIOError):
        reap(pidfd)
    told: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
    watch_death(pidfd, told.set_result)
    assert child.stdin is not None
    child.stdin.close()
    async with asyncio.timeout(5):
        assert await told == status
    assert reap(pidfd) is None  # reaped already, as one that is not ours
    os.close(pidfd)
    child.returncode = 0

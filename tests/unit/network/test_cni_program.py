"""Plugins as processes: what they are given, and that nothing of them outlives its call."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from phantom_cri import errors
from phantom_cri.network.cni import program
from phantom_cri.network.cni.program import Outcome

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CNI_COMMAND": "ADD"}


async def shell(tmp_path: Path, script: str, stdin: bytes = b"", timeout_s: float = 10.0) -> Outcome:
    path = tmp_path / "plugin"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return await program.run(str(path), ENVIRONMENT, stdin, timeout_s)


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


async def until(condition: object, *, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110 (processes have no event)
            await asyncio.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Or dead, and only its parent has not looked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_it_reads_is_answered_and_ends(tmp_path: Path) -> None:
    await shell(tmp_path, "true")
    before = open_fds()
    request = b"x" * 300_000  # more than a pipe holds
    outcome = await shell(tmp_path, "wc -c; echo no >&2; echo $CNI_COMMAND; exit 3", request)
    assert outcome == Outcome(3, b"300000\nADD\n", b"no\n")
    assert open_fds() == before


async def test_a_signal_is_a_negative_status(tmp_path: Path) -> None:
    assert (await shell(tmp_path, "kill -TERM $$")).status == -signal.SIGTERM


def is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:  # the one that the folder was read by
        return False


async def test_it_has_nothing_of_ours(tmp_path: Path) -> None:
    """No descriptor that we opened, no signal ignored that Python ignores, a session of its own."""
    held = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    inherited = sum(is_inheritable(int(number)) for number in os.listdir("/proc/self/fd") if int(number) > 2)
    script = "ls /proc/self/fd | wc -l; grep SigIgn /proc/self/status; cut -d' ' -f6 /proc/$$/stat; echo $$"
    lines = (await shell(tmp_path, script)).stdout.decode().split("\n")
    os.close(held)
    assert int(lines[0]) == 3 + 1 + inherited  # 1: the folder that ls reads; inherited: from who started us
    ignored = int(lines[1].split()[1], 16)
    assert not any(ignored >> (number - 1) & 1 for number in (signal.SIGPIPE, signal.SIGXFSZ))
    assert lines[2] == lines[3]


async def test_a_result_of_many_chunks_is_whole(tmp_path: Path) -> None:
    outcome = await shell(tmp_path, "head -c 1048576 /dev/zero; head -c 100000 /dev/zero >&2")
    assert len(outcome.stdout) == program.OUTPUT_LIMIT and len(outcome.stderr) == program.COMPLAINT_LIMIT


async def test_it_is_killed_when_it_says_too_much(tmp_path: Path) -> None:
    with pytest.raises(errors.Internal, match="plugin wrote more than 1048576 bytes and was killed"):
        await shell(tmp_path, f"echo $$ >{tmp_path}/pid; yes")
    await until(lambda: is_gone(int((tmp_path / "pid").read_text())))


async def test_it_is_killed_with_all_its_children_when_it_hangs(tmp_path: Path) -> None:
    before, began = open_fds(), time.monotonic()
    with pytest.raises(errors.Unavailable, match=r"plugin took longer than 0\.3 s and was killed"):
        await shell(tmp_path, f"sleep 100 & echo $! >{tmp_path}/pid; sleep 100", timeout_s=0.3)
    assert time.monotonic() - began < 5
    await until(lambda: is_gone(int((tmp_path / "pid").read_text())))
    assert open_fds() == before


async def test_it_is_killed_when_the_caller_leaves(tmp_path: Path) -> None:
    before = open_fds()
    task = asyncio.create_task(
        shell(tmp_path, f"echo $$ >{tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; sleep 99")
    )
    await until((tmp_path / "pid").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: is_gone(int((tmp_path / "pid").read_text())))
    assert open_fds() == before


async def test_a_child_that_keeps_its_output_open_holds_nobody_up(tmp_path: Path) -> None:
    began = time.monotonic()
    outcome = await shell(tmp_path, f"sleep 30 & echo $! >{tmp_path}/pid; echo done")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert outcome.stdout == b"done\n" and time.monotonic() - began < 10


@pytest.mark.parametrize(("mode", "content"), [(0o755, "garbage"), (0o755, "#!/no/such/interpreter\n")])
async def test_what_cannot_be_executed_is_told(tmp_path: Path, mode: int, content: str) -> None:
    before = open_fds()
    path = tmp_path / "plugin"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(errors.Internal, match=f"run {path}: E(NOEXEC|NOENT)"):
        await program.run(str(path), ENVIRONMENT, b"", 5.0)
    assert open_fds() == before

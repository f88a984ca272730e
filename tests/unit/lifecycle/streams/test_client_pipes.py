"""The descriptors of a client's session."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import termios
import time
from collections.abc import Iterator

import pytest

from phantom_cri.lifecycle.streams.client_pipes import ROOM, ClientPipes, all_hung_up


@pytest.fixture
def pipes() -> Iterator[ClientPipes]:
    made = ClientPipes()
    yield made
    made.close_all()


def test_each_end_is_non_blocking_and_not_inherited(pipes: ClientPipes) -> None:
    theirs = [pipes.make_stdin(), pipes.make_stdout(), pipes.make_stderr()]
    ours = [pipes.stdin, pipes.stdout, pipes.stderr]
    assert [os.get_blocking(fd) for fd in ours + theirs] == [False] * 3 + [True] * 3
    assert not any(os.get_inheritable(fd) for fd in ours + theirs)
    os.write(pipes.stdin, b"in")
    os.write(theirs[2], b"err")
    assert (os.read(theirs[0], 10), os.read(pipes.stderr, 10)) == (b"in", b"err")
    for fd in theirs:
        os.close(fd)


def test_closing_is_told_once(pipes: ClientPipes) -> None:
    told: list[int] = []
    pipes.on_close = lambda: told.append(1)
    os.close(pipes.make_stdin())
    fd = pipes.stdin
    pipes.close_all()
    pipes.close_all()
    assert (pipes.stdin, told) == (-1, [1])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_terminal_has_a_size(pipes: ClientPipes) -> None:
    pipes.resize(1, 1)  # without one: of no effect
    master, slave = pty.openpty()
    pipes.take_terminal(master, stdin=True, stdout=False)
    pipes.resize(120, 40)
    size = fcntl.ioctl(slave, termios.TIOCGWINSZ, bytes(8))
    assert struct.unpack("4H", size)[:2] == (40, 120)
    assert pipes.stdout == -1
    os.write(pipes.stdin, b"typed\n")
    assert os.read(slave, 10) == b"typed\n"
    os.close(slave)


def test_room_for_bursts(pipes: ClientPipes) -> None:
    """Refused is only the force; then it is the system's usual room."""
    writer = pipes.make_roomy_stdout()
    os.set_blocking(writer, False)
    written = os.write(writer, bytes(2 * ROOM))
    assert written >= (ROOM if os.geteuid() == 0 else 1)
    assert os.read(pipes.stdout, 10) == bytes(10)
    os.close(pipes.stdout)
    pipes.stdout = -1
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        os.write(writer, b"more")
    os.close(writer)


async def test_hung_up_when_the_last_writer_is_gone(pipes: ClientPipes) -> None:
    out, err = pipes.make_stdout(), pipes.make_stderr()
    os.write(out, b"still to be read")
    waiting = asyncio.create_task(all_hung_up(pipes.outputs(), 10))
    os.close(out)
    await asyncio.sleep(0.01)
    assert not waiting.done()
    os.close(err)
    assert await waiting
    assert os.read(pipes.stdout, 100) == b"still to be read"
    assert await all_hung_up(pipes.outputs(), 0)
    assert await all_hung_up([], 0)


async def test_a_writer_that_stays_is_waited_for_no_longer_than_said(pipes: ClientPipes) -> None:
    writer = pipes.make_stdout()
    began = time.monotonic()
    assert not await all_hung_up(pipes.outputs(), 0.05)
    assert 0.04 < time.monotonic() - began < 5
    os.close(writer)


async def test_while_somebody_else_reads(pipes: ClientPipes) -> None:
    """As the streaming server does: both may ask the loop about the same descriptor."""
    writer = pipes.make_stdout()
    found = bytearray()
    loop = asyncio.get_running_loop()
    loop.add_reader(pipes.stdout, lambda: found.extend(os.read(pipes.stdout, 100)))
    waiting = asyncio.create_task(all_hung_up(pipes.outputs(), 10))
    os.write(writer, b"more")
    await asyncio.sleep(0.01)
    os.close(writer)
    assert await waiting
    loop.remove_reader(pipes.stdout)
    assert found == bytearray(b"more")

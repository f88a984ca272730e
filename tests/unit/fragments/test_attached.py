"""What the daemon hears of its clients' attaches."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from phantom_cri.errors import NotFound
from phantom_cri.fragments import FragmentLost, LaunchError
from tests.unit.fragments.test_client import ERROR, OK, Pair

ATTACH, SOCKET, DETACHED = 12, 13, 69


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    made = Pair()
    yield made
    made.fragment.close()
    made.fake.close()


@pytest.fixture
def writers() -> Iterator[tuple[int, int]]:
    ends = [os.pipe() for _ in range(2)]
    yield ends[0][1], ends[1][1]
    for fd in (fd for pair in ends for fd in pair):
        os.close(fd)


async def test_what_is_asked_for(pair: Pair, writers: tuple[int, int]) -> None:
    stdout, stderr = writers
    for wanted, flags, fds in (
        ({"stdout": stdout, "stderr": stderr}, 6, 2),
        ({"stderr": stderr, "console": True}, 5, 1),
        ({"console": True, "once": True}, 9, 0),
    ):
        task, asked = await pair.ask(pair.fragment.attach("c1", **wanted))
        assert (asked.type, asked.process_id, asked.flags, asked.fds) == (ATTACH, "c1", flags, fds)
        pair.fake.send(OK, asked.serial)
        assert (await task).console == -1
    os.fstat(stdout)  # still the caller's


async def test_the_console_is_the_callers(pair: Pair, writers: tuple[int, int]) -> None:
    task, asked = await pair.ask(pair.fragment.attach("c1", stdout=writers[0], console=True))
    pair.fake.send(OK, asked.serial, fds=(writers[1],))
    console = (await task).console
    assert os.fstat(console).st_ino == os.fstat(writers[1]).st_ino
    os.close(console)


@pytest.mark.parametrize(("error", "kept_up"), [(0, True), (errno.ENOBUFS, False)])
async def test_the_end_is_told_even_with_the_answer(
    pair: Pair, writers: tuple[int, int], error: int, kept_up: bool
) -> None:
    first, asked = await pair.ask(pair.fragment.attach("c1", stdout=writers[0]))
    second, other = await pair.ask(pair.fragment.attach("c1", stdout=writers[0]))
    pair.fake.send(OK, other.serial)
    pair.fake.send(OK, asked.serial)
    pair.fake.send(DETACHED, asked.serial, error=error)
    assert await (await first).detached is kept_up
    still = (await second).detached
    assert not still.done()
    pair.fake.send(DETACHED, asked.serial)  # once more, or of one that nobody knows: of no effect
    pair.fake.send(DETACHED, 4711)
    pair.fake.send(DETACHED, other.serial)
    assert await still is True


async def test_a_lost_fragment_ends_all(pair: Pair, writers: tuple[int, int]) -> None:
    task, asked = await pair.ask(pair.fragment.attach("c1", stdout=writers[0]))
    pair.fake.send(OK, asked.serial)
    attached = await task
    pair.fake.close()
    with pytest.raises(FragmentLost):
        await attached.detached


async def test_a_client_that_left_is_not_told(pair: Pair, writers: tuple[int, int]) -> None:
    task, asked = await pair.ask(pair.fragment.attach("c1", stdout=writers[0]))
    pair.fake.send(OK, asked.serial)
    (await task).detached.cancel()
    task, asked = await pair.ask(pair.fragment.attach("c1", stdout=writers[0]))
    task.cancel()
    await asyncio.wait([task])
    pair.fake.send(DETACHED, asked.serial)
    assert pair.fragment.statistics().attached == 0


async def test_refusals(pair: Pair, writers: tuple[int, int]) -> None:
    task, asked = await pair.ask(pair.fragment.attach("c1", stdout=writers[0]))
    pair.fake.send(ERROR, asked.serial, value=1, value2=-1, error=errno.ESRCH)
    with pytest.raises(NotFound, match="attach to c1"):
        await task
    task, asked = await pair.ask(pair.fragment.attach("c1", stdout=writers[0]))
    pair.fake.send(ERROR, asked.serial, value=1, value2=-1, error=errno.EAGAIN, text=b"too many clients")
    with pytest.raises(LaunchError, match="too many clients") as refused:
        await task
    assert refused.value.code == "RESOURCE_EXHAUSTED"
    assert pair.fragment.statistics().attached == 0


async def test_a_socket(pair: Pair, writers: tuple[int, int]) -> None:
    task, asked = await pair.ask(pair.fragment.tcp_socket(10))
    assert (asked.type, asked.value, asked.fds) == (SOCKET, 10, 0)
    pair.fake.send(OK, asked.serial, fds=(writers[0],))
    os.close(await task)

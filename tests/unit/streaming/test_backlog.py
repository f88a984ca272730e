"""Output that is read at once: kept in order for a client that pauses, bounded, and given back."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable

import pytest

from phantom_cri.streaming import backlog
from phantom_cri.streaming.backlog import LIMIT, PIECE, Backlog, EagerOutflow
from tests.unit.streaming.sessions import until


class Client:
    """What takes from a flow, and pauses it as it likes."""

    def __init__(self) -> None:
        self.fd, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.found = bytearray()
        self.ends = 0
        self.flow = EagerOutflow(self.fd, self.take, self._end)
        self.between: Callable[[], None] = lambda: None

    def take(self, chunk: memoryview) -> None:
        self.found += chunk
        self.between()

    def _end(self) -> None:
        self.ends += 1

    async def write(self, content: bytes, patience_s: float = 5) -> None:
        """Raises TimeoutError when the flow takes no more."""
        rest = memoryview(content)
        async with asyncio.timeout(patience_s):
            while rest:
                try:
                    rest = rest[os.write(self.writer, rest) :]
                except BlockingIOError:
                    await asyncio.sleep(0)

    def close_writer(self) -> None:
        os.close(self.writer)
        self.writer = -1

    def close(self) -> None:
        self.flow.stop()
        os.close(self.fd)
        if self.writer >= 0:
            self.close_writer()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    made = Client()
    yield made
    made.close()
    assert Backlog.held == 0


@pytest.fixture
async def other() -> AsyncIterator[Client]:
    made = Client()
    yield made
    made.close()


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
async def test_all_of_it_and_then_the_end(client: Client, size: int) -> None:
    content = random.Random(size).randbytes(size)
    await client.write(content)
    client.close_writer()
    client.flow.resume()
    await until(lambda: client.ends)
    assert client.found == content
    assert client.ends == 1


async def test_order_is_kept_however_the_client_pauses(client: Client) -> None:
    content = random.Random(1).randbytes(5 * PIECE + 7)
    chance = random.Random(2)

    def stop_and_go() -> None:
        if chance.random() < 0.5:
            client.flow.pause()
            asyncio.get_running_loop().call_soon(client.flow.resume)

    client.between = stop_and_go
    client.flow.resume()
    for start in range(0, len(content), 77_777):
        await client.write(content[start : start + 77_777])
    client.close_writer()
    await until(lambda: client.ends)
    assert client.found == content


async def test_a_client_that_never_reads_fills_its_room_and_no_more(client: Client, other: Client) -> None:
    other.flow.resume()
    await client.write(bytes(LIMIT * PIECE))
    with pytest.raises(TimeoutError):
        await client.write(bytes(PIECE), 0.1)
    await until(lambda: Backlog.held == LIMIT)
    await other.write(b"others go on")
    await until(lambda: other.found == b"others go on")
    client.flow.stop()
    assert Backlog.held == 0


async def test_who_was_full_reads_on_once_there_is_room(client: Client) -> None:
    await client.write(bytes(LIMIT * PIECE))
    client.flow.resume()
    await client.write(bytes(PIECE))
    await until(lambda: len(client.found) == (LIMIT + 1) * PIECE)
    assert Backlog.held == 0


async def test_all_together_have_a_limit(
    client: Client, other: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "LIMIT_OF_ALL", 3)
    await client.write(bytes(3 * PIECE))
    await other.write(bytes(PIECE))
    await until(lambda: Backlog.held == 4)
    with pytest.raises(TimeoutError):
        await other.write(bytes(PIECE), 0.1)
    client.flow.stop()
    assert Backlog.held == 1


async def test_what_is_there_when_it_is_finished_is_all(client: Client) -> None:
    await client.write(bytes(2 * PIECE))
    client.flow.finish()
    await asyncio.sleep(0)
    assert client.ends == 0
    client.flow.resume()
    await until(lambda: client.ends)
    assert len(client.found) == 2 * PIECE


async def test_a_full_one_that_is_finished_still_ends(client: Client) -> None:
    await client.write(bytes(LIMIT * PIECE))
    await client.write(b"rest")
    client.flow.finish()
    client.flow.resume()
    await until(lambda: client.ends)
    assert bytes(client.found[LIMIT * PIECE :]) == b"rest"


async def test_a_client_that_leaves_while_it_is_given_something(client: Client) -> None:
    await client.write(bytes(PIECE))
    client.between = client.flow.stop
    client.flow.resume()
    await until(lambda: client.found)
    await asyncio.sleep(0)
    assert client.ends == 0

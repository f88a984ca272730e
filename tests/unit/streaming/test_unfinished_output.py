"""Output whose writer never closes it: all that is there is told, and then its end."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator

import pytest

from phantom_cri.streaming.flows import Outflow

ROOM = 1 << 20


class Reader:
    """A pipe that stays open for writing, and what an outflow makes of it."""

    def __init__(self) -> None:
        self.fd, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, ROOM)
        self.found = bytearray()
        self.ends = 0
        self.flow = Outflow(self.fd, self._take, self._end)

    def _take(self, chunk: memoryview) -> None:
        self.found += chunk

    def _end(self) -> None:
        self.ends += 1

    def close(self) -> None:
        self.flow.stop()
        os.close(self.fd)
        os.close(self.writer)


@pytest.fixture
async def reader() -> AsyncIterator[Reader]:
    made = Reader()
    yield made
    made.close()


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("size", [0, 1, 65536, ROOM])
async def test_all_that_is_there_and_then_the_end(reader: Reader, size: int) -> None:
    reader.flow.resume()
    os.write(reader.writer, bytes(size))
    reader.flow.finish()
    await turns()
    assert (len(reader.found), reader.ends) == (size, 1)


async def test_a_client_that_takes_no_more_gets_the_rest_later(reader: Reader) -> None:
    os.write(reader.writer, b"rest")
    reader.flow.finish()
    await turns()
    assert (bytes(reader.found), reader.ends) == (b"", 0)
    reader.flow.resume()
    await turns()
    assert (bytes(reader.found), reader.ends) == (b"rest", 1)


async def test_without_it_the_end_is_waited_for(reader: Reader) -> None:
    reader.flow.resume()
    os.write(reader.writer, b"some")
    await turns()
    assert (bytes(reader.found), reader.ends) == (b"some", 0)


async def test_a_pipe_is_never_made_smaller(reader: Reader) -> None:
    reader.flow.resume()
    os.write(reader.writer, bytes(65536))
    await turns()
    assert fcntl.fcntl(reader.fd, fcntl.F_GETPIPE_SZ) == ROOM

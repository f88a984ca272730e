"""Output of an exec: bounded, complete, never in the way of the writer."""

from __future__ import annotations

import asyncio
import os

import pytest

from phantom_cri.lifecycle.streams.output import Output


async def test_all_of_it_up_to_the_end() -> None:
    with Output(1 << 20) as output:
        writer = output.take_writer()
        os.write(writer, b"hello")
        os.close(writer)
        await output.closed()
        assert output.content() == b"hello"


async def test_a_flood_is_cut_at_the_limit_and_drained_whole() -> None:
    with Output(1000) as output:
        writer = output.take_writer()
        await asyncio.to_thread(_flood, writer, 1 << 22)
        await output.closed()
        assert output.content() == b"x" * 1000


async def test_a_writer_left_open_is_seen_as_open() -> None:
    with Output(10) as output:
        writer = output.take_writer()
        os.write(writer, b"a")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(output.closed(), 0.05)
        assert output.content() == b"a"
        os.close(writer)


async def test_nothing_is_left_open() -> None:
    before = os.listdir("/proc/self/fd")
    with Output(10):
        pass
    with Output(10) as output:
        os.close(output.take_writer())
        await output.closed()
    assert len(os.listdir("/proc/self/fd")) == len(before)


def _flood(writer: int, size: int) -> None:
    while size > 0:
        size -= os.write(writer, b"x" * 65536)
    os.close(writer)

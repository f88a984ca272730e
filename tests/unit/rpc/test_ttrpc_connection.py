"""A connection that outlives its process: what is served, by whom, and what is left for a later one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from phantom_cri.rpc.ttrpc import Frame, Kind, pack
from phantom_cri.rpc.ttrpc_connection import WHOLE, Connection


class Files:
    """A journal of files, and whether the connection is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_kept: list[bool] = []

    def add(self, stream: int, frame: bytes) -> None:
        (self.folder / str(stream)).write_bytes(frame)

    def done(self, stream: int) -> None:
        (self.folder / str(stream)).unlink(missing_ok=True)

    def keep(self, peer: socket.socket | None) -> None:
        self.is_kept.append(peer is not None)

    def streams(self) -> list[int]:
        return sorted(int(path.name) for path in self.folder.iterdir())

    def requests(self) -> dict[int, bytes]:
        return {stream: (self.folder / str(stream)).read_bytes() for stream in self.streams()}


class End:
    """Our end, and what came of it."""

    def __init__(self, peer: socket.socket) -> None:
        self.frames: list[tuple[int, bytes | None, bool]] = []
        self.closed = False
        self._changed = asyncio.Event()
        self.connection = Connection(peer, self._frame, self._ended)

    def _frame(self, connection: Connection, frame: Frame, last: int, again: bool) -> None:
        self.frames.append((frame.stream, frame.body, again))
        self._changed.set()

    def _ended(self, connection: Connection) -> None:
        self.closed = True
        self._changed.set()

    async def until(self, frames: int | None) -> None:
        """So many frames have come; None: it has ended."""
        async with asyncio.timeout(5):
            while not self.closed if frames is None else len(self.frames) < frames:
                await self._changed.wait()
                self._changed.clear()


@pytest.fixture
async def ends() -> AsyncIterator[tuple[End, socket.socket, socket.socket]]:
    """Ours, a copy of its socket as a fragment would have it, and the client's."""
    ours, theirs = socket.socketpair()
    copy = ours.dup()
    end = End(ours)
    yield end, copy, theirs
    end.connection.close()
    copy.close()
    theirs.close()


def request(stream: int, body: bytes = b"body") -> bytes:
    return pack(stream, Kind.REQUEST, body)


async def test_an_end_within_a_frame(ends: tuple[End, socket.socket, socket.socket]) -> None:
    end, _, theirs = ends
    theirs.send(request(1)[:-1])
    await asyncio.sleep(0.02)
    theirs.shutdown(socket.SHUT_WR)
    await end.until(None)
    assert end.frames == []


async def test_a_frame_in_pieces(ends: tuple[End, socket.socket, socket.socket]) -> None:
    end, _, theirs = ends
    for byte in request(1):
        theirs.send(bytes([byte]))
        await asyncio.sleep(0.002)
    await end.until(1)
    assert end.frames == [(1, b"body", False)]


async def test_what_has_no_answer_is_left_for_a_later_process(
    ends: tuple[End, socket.socket, socket.socket], tmp_path: Path
) -> None:
    end, copy, theirs = ends
    journal = Files(tmp_path)
    theirs.send(request(1) + request(3))
    await end.until(2)
    end.connection.journal_to(journal)
    theirs.send(request(5))
    await end.until(3)
    end.connection.answer(3, b"three")
    assert theirs.recv(9) == b"three"
    end.connection.close(keep=True)  # as if it had been killed: nothing is told to the journal
    assert (journal.streams(), journal.is_kept) == ([1, 5], [True])

    # Killed between the journal and the socket, the request is in both.
    theirs.send(request(7))
    journal.add(7, request(7))
    theirs.send(request(9))
    later = End(copy.dup())
    later.connection.resume(journal, journal.requests())
    await later.until(4)
    await asyncio.sleep(0.02)
    assert later.frames == [(1, b"body", True), (5, b"body", True), (7, b"body", True), (9, b"body", False)]
    later.connection.answer(7, b"seven")
    assert theirs.recv(9) == b"seven"
    assert journal.streams() == [1, 5, 9]
    theirs.close()
    await later.until(None)
    assert (journal.streams(), journal.is_kept[-1]) == ([], False)


async def test_a_large_frame_is_not_safe_until_it_is_whole(
    ends: tuple[End, socket.socket, socket.socket], tmp_path: Path
) -> None:
    end, _, theirs = ends
    journal = Files(tmp_path)
    end.connection.journal_to(journal)
    large = request(1, b"x" * (WHOLE + 1))
    theirs.send(large[:-1])
    await asyncio.sleep(0.05)
    assert (end.frames, journal.is_kept, journal.streams()) == ([], [True, False], [])
    theirs.send(large[-1:] + request(3))
    await end.until(2)
    assert [stream for stream, _, _ in end.frames] == [1, 3]
    assert (journal.is_kept, journal.streams()) == ([True, False, True], [1, 3])


async def test_a_client_that_does_not_read_stops_nobody(
    ends: tuple[End, socket.socket, socket.socket],
) -> None:
    end, _, theirs = ends
    theirs.send(request(1))
    await end.until(1)
    answer = b"y" * (4 << 20)
    end.connection.answer(1, answer)
    theirs.setblocking(False)
    loop, got = asyncio.get_running_loop(), 0
    while got < len(answer):
        got += len(await loop.sock_recv(theirs, 1 << 20))

"""Buffers output of a writer that never waits: read at once, and kept for a slower client."""

from __future__ import annotations

import asyncio
import mmap
import os
from collections import deque
from collections.abc import Callable

from phantom_cri.streaming.flows import CHUNK

PIECE = 1 << 20
READS = 8
"""Most pieces read in one turn of the event loop, so that others get their turn."""

LIMIT = 64
"""Most pieces buffered for one stream. A container writes faster than clients read over a network, and bursts
of some ten MiB (a listing, a dump of stacks) are usual: they must not disconnect a client."""

LIMIT_OF_ALL = 256
"""Most pieces of all streams together: clients that stop reading must not use up the node's memory."""


class Backlog:
    """Bytes in pieces, each mapped from the kernel and unmapped as soon as it is empty."""

    held = 0  # pieces of all backlogs

    def __init__(self) -> None:
        self._pieces: deque[mmap.mmap] = deque()
        self._start = 0  # in the first piece
        self._end = PIECE  # in the last one

    def __bool__(self) -> bool:
        return bool(self._pieces)

    @property
    def is_full(self) -> bool:
        """Each stream may have one piece, even if all others are full."""
        count = len(self._pieces)
        return self._end == PIECE and (count >= LIMIT or (count > 0 and Backlog.held >= LIMIT_OF_ALL))

    def fill(self, fd: int) -> int:
        """Reads available bytes, at most a piece; as os.readv. Must not be called when full."""
        fresh = mmap.mmap(-1, PIECE) if self._end == PIECE else None
        count = os.readv(fd, (memoryview(fresh or self._pieces[-1])[0 if fresh else self._end :],))
        if fresh and count:
            self._pieces.append(fresh)
            Backlog.held += 1
            self._end = 0
        self._end += count
        return count

    def front(self) -> memoryview:
        """Some of the oldest bytes, valid until the next call of `drop` or `clear`."""
        end = self._end if len(self._pieces) == 1 else PIECE
        return memoryview(self._pieces[0])[self._start : min(end, self._start + CHUNK)]

    def drop(self, count: int) -> None:
        self._start += count
        is_last = len(self._pieces) == 1
        if self._start == (self._end if is_last else PIECE):
            self._pieces.popleft()
            Backlog.held -= 1
            self._start = 0
            if is_last:
                self._end = PIECE

    def clear(self) -> None:
        Backlog.held -= len(self._pieces)
        self._pieces.clear()
        self._start, self._end = 0, PIECE


class EagerOutflow:
    """As `flows.Outflow`, but always reads into a backlog, and ends only if that is full."""

    def __init__(self, fd: int, emit: Callable[[memoryview], None], ended: Callable[[], None]) -> None:
        self._fd = fd
        self._emit = emit
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._backlog = Backlog()
        self._paused = True
        self._reading = False
        self._finishing = False
        self._at_end = False
        self._over = False
        self._turn: asyncio.Handle | None = None
        self._read_on()

    def resume(self) -> None:
        self._paused = False
        self._drain_soon()

    def pause(self) -> None:
        self._paused = True

    def finish(self) -> None:
        """Read only what is available now: another process may keep the other end open."""
        self._finishing = True
        self._read_rest()

    def stop(self) -> None:
        self._over = True
        self._stop_reading()
        self._backlog.clear()
        if self._turn:
            self._turn.cancel()

    def _read_on(self) -> None:
        if not (self._reading or self._at_end or self._over or self._backlog.is_full):
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)
            if self._finishing:
                self._loop.call_soon(self._read_rest)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def _read_rest(self) -> None:
        if self._reading:
            self._readable()

    def _readable(self) -> None:
        """Only reads, sends nothing: the pipe has to be emptied first, as its writer may be faster."""
        try:
            for _ in range(READS):
                self._at_end = not self._backlog.is_full and self._backlog.fill(self._fd) == 0
                if self._at_end or self._backlog.is_full:
                    break
        except BlockingIOError:
            self._at_end = self._finishing
        except OSError:  # as in Outflow
            self._at_end = True
        if self._at_end or self._backlog.is_full:
            self._stop_reading()
        elif self._finishing:
            self._loop.call_soon(self._read_rest)
        self._drain_soon()

    def _drain_soon(self) -> None:
        if self._turn is None and not self._over:
            self._turn = self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        """Sends a little per turn of the event loop, so that reading and others get their turn."""
        self._turn = None
        if self._backlog and not self._paused:
            chunk = self._backlog.front()
            self._emit(chunk)
            if self._over:
                return
            self._backlog.drop(len(chunk))
            self._read_on()
            if not self._paused:
                self._drain_soon()
        if self._at_end and not self._backlog and not self._over:
            self.stop()
            self._ended()

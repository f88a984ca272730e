"""Bytes between a descriptor and a client, in big pieces and never more of them than the client takes."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable

from phantom_cri.streaming.client_connection import Link

CHUNK = 256 << 10
PIPE = 64 << 10
"""A pipe's capacity unless somebody changed it, pipe(7)."""

_SCRATCH = memoryview(bytearray(CHUNK))
"""Where every flow of the process reads to: `emit` is done with it when it returns, in the one event loop."""


class Outflow:
    """What comes out of `fd` goes to `emit`, until `ended` is called once. `fd` stays the caller's."""

    def __init__(self, fd: int, emit: Callable[[memoryview], None], ended: Callable[[], None]) -> None:
        self._fd = fd
        self._emit = emit
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._reading = False
        self._over = False
        self._finishing = False
        self._grown = False

    def resume(self) -> None:
        if not self._reading and not self._over:
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)
            if self._finishing:
                self._loop.call_soon(self._read_rest)

    def pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def finish(self) -> None:
        """What is there now is all that is wanted: somebody may hold the other end open for ever."""
        self._finishing = True
        self._read_rest()

    def stop(self) -> None:
        self._over = True
        self.pause()

    def _read_rest(self) -> None:
        if self._reading:
            self._readable()

    def _readable(self) -> None:
        try:
            count = os.readv(self._fd, (_SCRATCH,))
        except BlockingIOError:
            if not self._finishing:
                return
            count = 0
        except OSError:  # EIO: nobody holds the terminal's other end; ECONNRESET: a peer that left in a hurry
            count = 0
        if count:
            if count == PIPE and not self._grown:
                self._grown = True
                _grow(self._fd)
            self._emit(_SCRATCH[:count])
            if self._finishing:
                self._loop.call_soon(self._read_rest)
        else:
            self.stop()
            self._ended()


class Budget:
    """Bytes of a client's input that may wait for slow takers; beyond them the link is held."""

    def __init__(self, link: Link, limit: int) -> None:
        self._link = link
        self._limit = limit
        self._waiting = 0
        self._holding = False

    def change(self, count: int) -> None:
        self._waiting += count
        if not self._holding and self._waiting > self._limit:
            self._holding = True
            self._link.hold()
        elif self._holding and self._waiting <= self._limit // 4:
            self._holding = False
            self._link.release()


class Inflow:
    """A client's input on its way into a descriptor, which may come later than the first of it.

    After a write has failed (the reader closed its end) the rest is thrown away.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._fd = -1
        self._loop = asyncio.get_running_loop()
        self._waiting = bytearray()
        self._writing = False
        self._broken = False
        self._ended = False
        self._at_end: Callable[[], None] | None = None
        self._grown = False

    def connect(self, fd: int) -> None:
        """`fd` stays the caller's, who calls `stop` before it is closed. -1: nobody wants the input."""
        self._fd = fd
        if fd < 0:
            self._break()
        self._flush()

    def feed(self, chunk: memoryview) -> None:
        if self._broken or self._ended:
            return
        if self._fd >= 0 and not self._waiting:
            chunk = chunk[self._write(chunk) :]
        if chunk and not self._broken:
            self._waiting += chunk
            self._budget.change(len(chunk))
            self._wait_until_writable()

    def end(self, then: Callable[[], None]) -> None:
        """Calls `then` when all that was fed has been written, once there is a descriptor.

        `then` may close the descriptor: nothing is written any more. Only the first call counts.
        """
        if self._ended:
            return
        self._ended = True
        self._at_end = then
        if self._broken or (self._fd >= 0 and not self._waiting):
            self._finish()

    def stop(self) -> None:
        self._at_end = None
        self._break()
        self._fd = -1

    def _flush(self) -> None:
        if self._waiting:
            written = self._write(self._waiting)
            if not self._broken:
                del self._waiting[:written]
                self._budget.change(-written)
        if self._waiting:
            self._wait_until_writable()
            return
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)
        self._finish()

    def _write(self, chunk: memoryview | bytearray) -> int:
        try:
            written = os.write(self._fd, chunk)
        except BlockingIOError:
            written = 0
        except OSError:
            self._break()
            return 0
        if written < len(chunk) and not self._grown:
            self._grown = True
            _grow(self._fd)
        return written

    def _wait_until_writable(self) -> None:
        if self._fd >= 0 and not self._writing:
            self._writing = True
            self._loop.add_writer(self._fd, self._flush)

    def _break(self) -> None:
        self._broken = True
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)
        self._budget.change(-len(self._waiting))
        self._waiting = bytearray()

    def _finish(self) -> None:
        then, self._at_end = self._at_end, None
        if then:
            then()


def _grow(fd: int) -> None:
    """Fewer turns for a busy pipe. What is no pipe, or beyond a user's share (EPERM), stays as it is."""
    with contextlib.suppress(OSError):
        if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < CHUNK:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, CHUNK)

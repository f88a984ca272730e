"""Copies bytes between a descriptor and a client, in big pieces, with back-pressure."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable

from phantom_cri.streaming.client_connection import Link

CHUNK = 256 << 10
PIPE = 64 << 10
"""A pipe's default capacity, pipe(7)."""

_SCRATCH = memoryview(bytearray(CHUNK))
"""The read buffer of all flows: `emit` uses it before it returns, in the only event loop."""


class Outflow:
    """Passes the output of `fd` to `emit`; `ended` is called once at its end. The caller keeps `fd`."""

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
        """Read only what is available now: another process may keep the other end open."""
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
        except OSError:  # EIO: the terminal's other end is closed; ECONNRESET: the peer reset the connection
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
    """Limit of a client's buffered input; at the limit the link is paused."""

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
    """Writes a client's input to a descriptor, which may be set after the first input.

    After a failed write (the reader closed its end) the rest is dropped.
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
        """The caller keeps `fd`, and calls `stop` before closing it. -1: drop the input."""
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
        """Calls `then` when all input has been written, after the descriptor was set.

        `then` may close the descriptor: nothing is written afterwards. Only the first call has an effect.
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
    """Enlarge a pipe for fewer turns. Not possible for other files, or over the user's limit (EPERM)."""
    with contextlib.suppress(OSError):
        if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < CHUNK:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, CHUNK)

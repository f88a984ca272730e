"""Between a terminal and the FIFOs of whoever sits at its other end."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import Callable

from shim.stdio import Streams, open_input, open_output

_PIECE = 1 << 16


class _Pump:
    """Copies from one non-blocking fd to another and waits for the slower one; `on_end` once, at the end."""

    def __init__(self, source: int, target: int, on_end: Callable[[], None]) -> None:
        self._source, self._target, self._on_end = source, target, on_end
        self._left = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(source, self._readable)

    def _readable(self) -> None:
        try:
            self._left = os.read(self._source, _PIECE)
        except BlockingIOError:
            return
        except OSError:  # EIO: nobody has the terminal open any more
            self._left = b""
        if not self._left:
            self.stop()
            self._on_end()
            return
        self._loop.remove_reader(self._source)
        self._loop.add_writer(self._target, self._writable)
        self._writable()

    def _writable(self) -> None:
        try:
            self._left = self._left[os.write(self._target, self._left) :]
        except BlockingIOError:
            return
        except OSError:
            self._left = b""  # it takes nothing more; what comes is read all the same
        if not self._left:
            self._loop.remove_writer(self._target)
            self._loop.add_reader(self._source, self._readable)

    def stop(self) -> None:
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._target)


class Console:
    """Owns the master of a process's terminal; `close` ends it, and it ends by itself with the terminal."""

    def __init__(self, master: int, streams: Streams) -> None:
        """Takes over `master`. Raises InvalidArgument, Internal for FIFOs that cannot be opened."""
        self._fds = [master]
        self._pumps: list[_Pump] = []
        self._master = master
        self._input_writer = -1
        os.set_blocking(master, False)
        try:
            if streams.stdin:
                reader, self._input_writer = open_input(streams.stdin)
                self._fds += [reader, self._input_writer]
                os.set_blocking(reader, False)
            output = open_output(streams.stdout, "stdout") if streams.stdout else _nothing()
            self._fds.append(output)
            os.set_blocking(output, False)
        except BaseException:
            self.close()
            raise
        # A terminal has one fd for both directions, and a loop one callback of each kind for an fd.
        self._pumps.append(_Pump(master, output, self.close))
        if streams.stdin:
            self._fds.append(typed := os.dup(master))
            self._pumps.append(_Pump(reader, typed, lambda: None))

    def resize(self, width: int, height: int) -> None:
        if self._fds:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))

    def close_input(self) -> None:
        if self._input_writer >= 0:
            self._fds.remove(self._input_writer)
            os.close(self._input_writer)
            self._input_writer = -1

    def close(self) -> None:
        """Idempotent."""
        for pump in self._pumps:
            pump.stop()
        while self._fds:
            os.close(self._fds.pop())
        self._input_writer = -1


def _nothing() -> int:
    return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

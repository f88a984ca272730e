"""Between a terminal and the FIFOs of whoever sits at its other end."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import Callable
from typing import NamedTuple

from phantom_cri.fragments.handle import FragmentHandle
from shim.kept import Kept, kept
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


class Ends(NamedTuple):
    """The FIFOs, as far as there are any; `writer` is only to keep the input from ending."""

    reader: Kept | None
    writer: Kept | None
    output: Kept | None


def open_ends(fragment: FragmentHandle, process_id: str, streams: Streams) -> Ends:
    """Raises InvalidArgument, Internal naming the path."""
    output = reader = writer = None
    if streams.stdout:
        output = Kept(fragment, f"out.{process_id}", open_output(streams.stdout, "stdout"))
    if streams.stdin:
        try:
            found = open_input(streams.stdin)
        except BaseException:
            if output is not None:
                output.close()
            raise
        reader = Kept(fragment, f"in.{process_id}", found.reader)
        writer = Kept(fragment, f"hold.{process_id}", found.writer)
    return Ends(reader, writer, output)


async def kept_ends(fragment: FragmentHandle, process_id: str) -> Ends:
    """Those that an earlier daemon has left."""
    return Ends(*[await kept(fragment, f"{name}.{process_id}") for name in ("in", "hold", "out")])


class Console:
    """Owns the master of a process's terminal; `close` ends it, and it ends by itself with the terminal."""

    def __init__(self, master: int, ends: Ends) -> None:
        """Takes over both."""
        self._ends = ends
        self._fds = [master]
        os.set_blocking(master, False)
        if ends.output is None:
            self._fds.append(output := os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
        else:
            output = ends.output.fd
        os.set_blocking(output, False)
        # A loop has one callback of each kind for an fd, and a terminal one fd for both directions.
        self._pumps = [_Pump(master, output, self.close)]
        if ends.reader is not None:
            os.set_blocking(ends.reader.fd, False)
            self._fds.append(typed := os.dup(master))
            self._pumps.append(_Pump(ends.reader.fd, typed, lambda: None))

    def resize(self, width: int, height: int) -> None:
        if self._fds:
            fcntl.ioctl(self._fds[0], termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))

    def close_input(self) -> None:
        if self._ends.writer is not None:
            self._ends.writer.close()

    def close(self) -> None:
        """Idempotent."""
        for pump in self._pumps:
            pump.stop()
        self._pumps.clear()
        for end in self._ends:
            if end is not None:
                end.close()
        while self._fds:
            os.close(self._fds.pop())

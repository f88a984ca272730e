"""The descriptors of a client's session, closed together."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import socket
import struct
import termios
from collections.abc import Callable, Iterable

from phantom_cri import fragments

_SO_SNDBUFFORCE = 32  # include/uapi/asm-generic/socket.h

ROOM = 32 << 20
"""Buffer, in bytes, between a writer that never waits and this process, which may be delayed."""


class ClientPipes:
    """The session's side of stdin, stdout and stderr (-1: none), non-blocking, and its terminal."""

    is_lossy = False

    def __init__(self) -> None:
        self.stdin = self.stdout = self.stderr = -1
        self.terminal = -1
        self.on_close: Callable[[], None] = _nothing

    def make_stdin(self) -> int:
        """The read end; the caller closes it."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self.stdin = _ours(writer, reader)
        return reader

    def make_stdout(self) -> int:
        """The write end; the caller closes it."""
        self.stdout, writer = _output()
        return writer

    def make_stderr(self) -> int:
        self.stderr, writer = _output()
        return writer

    def make_roomy_stdout(self) -> int:
        """As `make_stdout`, for a writer that never waits."""
        self.stdout, writer = _roomy_output()
        return writer

    def make_roomy_stderr(self) -> int:
        self.stderr, writer = _roomy_output()
        return writer

    def outputs(self) -> list[int]:
        return [fd for fd in (self.stdout, self.stderr) if fd >= 0]

    def take_terminal(self, master: int, *, stdin: bool, stdout: bool) -> None:
        """Takes ownership of a pty's master, for input and output as requested, and for its size."""
        self.terminal = fragments.moved_up(master)
        if stdin:
            self.stdin = fragments.moved_up(os.dup(self.terminal))
        if stdout:
            self.stdout = fragments.moved_up(os.dup(self.terminal))

    def resize(self, width: int, height: int) -> None:
        if self.terminal >= 0:
            with contextlib.suppress(OSError):  # the process has ended
                fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))

    def close_stdin(self) -> None:
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def close_all(self) -> None:
        fds = [fd for fd in (self.stdin, self.stdout, self.stderr, self.terminal) if fd >= 0]
        self.stdin = self.stdout = self.stderr = self.terminal = -1
        for fd in fds:
            os.close(fd)
        on_close, self.on_close = self.on_close, _nothing
        on_close()


def _nothing() -> None:
    pass


def _output() -> tuple[int, int]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    return _ours(reader, writer), writer


def _roomy_output() -> tuple[int, int]:
    """A pair of sockets with large buffers: for a large pipe the daemon would need CAP_SYS_RESOURCE, which a
    service may lack; for a socket CAP_NET_ADMIN, which the network needs anyway (socket(7)).
    """
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with reader, writer:
        with contextlib.suppress(PermissionError):
            writer.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, ROOM)
        reader.shutdown(socket.SHUT_WR)
        ours, theirs = reader.detach(), writer.detach()
    return _ours(ours, theirs), theirs


def _ours(fd: int, other: int) -> int:
    """Move `fd` to a high number, as many sessions may be open for long. On failure closes both."""
    try:
        os.set_blocking(fd, False)
    except BaseException:
        os.close(fd)
        os.close(other)
        raise
    return fragments.moved_up(fd)


async def all_hung_up(fds: Iterable[int], seconds: float) -> bool:
    """Whether all writers of these fds' pipes have closed them, waiting at most `seconds`.

    Does not read, so it can be used beside a reader: it has its own epoll, which always reports EPOLLHUP
    (epoll_ctl(2)).
    """
    loop, left = asyncio.get_running_loop(), set(fds)
    done: asyncio.Future[None] = loop.create_future()
    with select.epoll() as poll:

        def look() -> None:
            for fd, _ in poll.poll(0):
                poll.unregister(fd)
                left.discard(fd)
            if not left and not done.done():
                done.set_result(None)

        for fd in left:
            poll.register(fd, 0)
        loop.add_reader(poll.fileno(), look)
        try:
            look()
            async with asyncio.timeout(seconds):
                await done
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(poll.fileno())
    return True

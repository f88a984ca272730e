"""The descriptors of a client's session: made together, closed together."""

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
"""Bytes that may lie between a writer that does not wait and this process, which may not run for a while."""


class ClientPipes:
    """The session's side of stdin, stdout and stderr (-1: none), non-blocking, and its terminal."""

    is_lossy = False

    def __init__(self) -> None:
        self.stdin = self.stdout = self.stderr = -1
        self.terminal = -1
        self.on_close: Callable[[], None] = _nothing

    def make_stdin(self) -> int:
        """The reading end, for the caller to close."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self.stdin = _ours(writer, reader)
        return reader

    def make_stdout(self) -> int:
        """The writing end, for the caller to close."""
        self.stdout, writer = _output()
        return writer

    def make_stderr(self) -> int:
        self.stderr, writer = _output()
        return writer

    def make_roomy_stdout(self) -> int:
        """As `make_stdout`, for a writer that does not wait."""
        self.stdout, writer = _roomy_output()
        return writer

    def make_roomy_stderr(self) -> int:
        self.stderr, writer = _roomy_output()
        return writer

    def outputs(self) -> list[int]:
        return [fd for fd in (self.stdout, self.stderr) if fd >= 0]

    def take_terminal(self, master: int, *, stdin: bool, stdout: bool) -> None:
        """Takes over a pty's master, for input and output as asked, and always for its size."""
        self.terminal = fragments.moved_up(master)
        if stdin:
            self.stdin = fragments.moved_up(os.dup(self.terminal))
        if stdout:
            self.stdout = fragments.moved_up(os.dup(self.terminal))

    def resize(self, width: int, height: int) -> None:
        if self.terminal >= 0:
            with contextlib.suppress(OSError):  # it has ended meanwhile
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
    """A pair of sockets: beyond a pipe's usual sizes one has to have CAP_SYS_RESOURCE, which a node's
    service may lack, while a socket's is forced with the CAP_NET_ADMIN that the network takes, socket(7).
    """
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with reader, writer:
        with contextlib.suppress(PermissionError):
            writer.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, ROOM)
        reader.shutdown(socket.SHUT_WR)
        ours, theirs = reader.detach(), writer.detach()
    return _ours(ours, theirs), theirs


def _ours(fd: int, other: int) -> int:
    """Out of the low numbers: there may be many sessions, and they may last. What fails closes both."""
    try:
        os.set_blocking(fd, False)
    except BaseException:
        os.close(fd)
        os.close(other)
        raise
    return fragments.moved_up(fd)


async def all_hung_up(fds: Iterable[int], seconds: float) -> bool:
    """Whether nobody is left who could write to what these fds read, waited for at most `seconds`.

    Does not read, and may be asked while somebody else does: by an epoll of its own, which tells of EPOLLHUP
    whether or not it is asked to (epoll_ctl(2)).
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

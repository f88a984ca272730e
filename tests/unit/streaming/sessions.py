"""Sessions and dials over real processes, pipes, terminals and sockets."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import subprocess
import termios
from collections.abc import Callable, Sequence

from phantom_cri.errors import Unavailable
from phantom_cri.streaming import Session


class ProcessSession:
    """A `Session` of a process on this machine."""

    def __init__(self, command: Sequence[str], *, tty: bool = False, attach: bool = False) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.closed = 0
        self.input_ended = 0
        self.is_lossy = attach
        if tty:
            self.stdin, terminal = os.openpty()
            self.stdout, self.stderr = os.dup(self.stdin), -1
            self.process = subprocess.Popen(
                command, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
            )
            os.close(terminal)
        else:
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
            assert self.process.stdin and self.process.stdout and self.process.stderr
            self.stdin = os.dup(self.process.stdin.fileno())
            self.stdout = os.dup(self.process.stdout.fileno())
            self.stderr = os.dup(self.process.stderr.fileno())
            for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
                stream.close()
        for fd in (self.stdin, self.stdout, self.stderr):
            if fd >= 0:
                os.set_blocking(fd, False)

    def resize(self, width: int, height: int) -> None:
        self.sizes.append((width, height))
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.stdin, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def end_input(self) -> None:
        self.input_ended += 1
        os.close(self.stdin)
        self.stdin = -1

    async def wait(self) -> int:
        code = await asyncio.to_thread(self.process.wait)
        return code if code >= 0 else 128 - code

    async def close(self) -> None:
        self.closed += 1
        self.process.kill()
        await asyncio.to_thread(self.process.wait)
        for fd in (self.stdin, self.stdout, self.stderr):
            if fd >= 0:
                os.close(fd)


class Opener:
    """An `OpenSession` that remembers what it opened."""

    def __init__(self, *command: str, tty: bool = False) -> None:
        self.command = command
        self.tty = tty
        self.session: ProcessSession | None = None
        self.calls = 0

    async def __call__(self) -> Session:
        self.calls += 1
        self.session = ProcessSession(self.command, tty=self.tty)
        return self.session

    @property
    def opened(self) -> ProcessSession:
        assert self.session
        return self.session


async def dial(port: int) -> int:
    """A `Dial` to this machine's loopback."""
    sock = socket.socket()
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    except OSError as error:
        sock.close()
        raise Unavailable(f"connect to port {port}: {error.strerror}") from None
    return sock.detach()


def open_descriptors() -> set[str]:
    """This process's descriptors, as number and target."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found


async def until(condition: Callable[[], object], timeout_s: float = 10) -> None:
    """Waits for something that tells nobody when it happens."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

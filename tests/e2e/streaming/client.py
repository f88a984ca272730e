"""A real crictl that is given input, read from, stopped and killed while it runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

from harness.tools import tool

PATIENCE_SECONDS = 30.0


class Running:
    """A crictl whose three streams are ours; with a terminal the first two are one."""

    def __init__(self, process: subprocess.Popen[bytes], stdin: int, stdout: int) -> None:
        self.process, self.stdin, self.stdout = process, stdin, stdout
        self.seen = bytearray()

    def write(self, text: bytes) -> None:
        while text:
            text = text[os.write(self.stdin, text) :]

    def end_input(self) -> None:
        os.close(self.stdin)
        self.stdin = -1

    def read_until(self, wanted: bytes) -> bytearray:
        """All output so far, once `wanted` is in it."""
        end = time.monotonic() + PATIENCE_SECONDS
        while wanted not in self.seen:
            ready, _, _ = select.select([self.stdout], [], [], max(0.0, end - time.monotonic()))
            piece = _read(self.stdout) if ready else b""
            if not piece:
                raise AssertionError(f"{wanted!r} did not come: {self.seen[-2000:]!r} {self.stderr()!r}")
            self.seen += piece
        return self.seen

    def forget(self) -> None:
        """What was seen so far does not count for the next `read_until`."""
        self.seen.clear()

    def rest(self) -> bytearray:
        """All output, to its end."""
        while piece := _read(self.stdout):
            self.seen += piece
        return self.seen

    def wait(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def stderr(self) -> bytes:
        """Ends the program if it has not ended."""
        self.kill()
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self.stdin, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        self.kill()
        for fd in {self.stdin, self.stdout} - {-1}:
            os.close(fd)
        if self.process.stderr is not None:
            self.process.stderr.close()


class StreamClient:
    """Runs crictl's streaming verbs over one transport."""

    def __init__(self, endpoint: str, transport: str) -> None:
        self._endpoint = endpoint
        self.transport = transport

    def command(self, verb: str, *arguments: str) -> list[str]:
        return [
            str(tool("crictl")),
            f"--config={os.devnull}",
            f"--runtime-endpoint={self._endpoint}",
            f"--image-endpoint={self._endpoint}",
            verb,
            f"--transport={self.transport}",
            *arguments,
        ]

    def run(self, verb: str, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(verb, *arguments),
            input=given,
            capture_output=True,
            timeout=2 * PATIENCE_SECONDS,
            check=False,
        )

    @contextmanager
    def start(self, verb: str, *arguments: str) -> Iterator[Running]:
        """With pipes; ends with the block."""
        process = subprocess.Popen(
            self.command(verb, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        assert process.stdin is not None and process.stdout is not None
        running = Running(process, os.dup(process.stdin.fileno()), os.dup(process.stdout.fileno()))
        process.stdin.close()
        process.stdout.close()
        try:
            yield running
        finally:
            running.close()

    @contextmanager
    def terminal(self, verb: str, *arguments: str, width: int = 80, height: int = 24) -> Iterator[Running]:
        """With a terminal of this size; ends with the block."""
        master, slave = pty.openpty()
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))
        process = subprocess.Popen(
            self.command(verb, "-i", "-t", *arguments),
            stdin=slave,
            stdout=slave,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        os.close(slave)
        running = Running(process, master, master)
        try:
            yield running
        finally:
            running.close()


def _read(fd: int) -> bytes:
    with contextlib.suppress(OSError):  # EIO: the terminal's other end is closed
        return os.read(fd, 1 << 20)
    return b""

"""Runs a plugin: a program with its request on stdin and its answer on stdout, with limits of time and size.

By posix_spawn, so that this process is not copied and no fork handler runs (gRPC does not support fork).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import NamedTuple

from phantom_cri import codec, errors

OUTPUT_LIMIT = 1 << 20
"""Limit of stdout in bytes. A result with a thousand routes has a tenth of it."""

COMPLAINT_LIMIT = 64 << 10
"""Bytes of stderr that are kept; more is read and dropped."""

_CHUNK = 64 << 10
_GRACE = 1.0  # seconds to wait for the end of output: a child may keep it open
_KILL_GRACE = 5.0
_DEFAULT_AGAIN = (signal.SIGPIPE, signal.SIGXFSZ)  # ignored by Python, which would be inherited


class Outcome(NamedTuple):
    """`status`: exit code, or the negative number of the signal that killed it."""

    status: int
    stdout: bytes
    stderr: bytes


async def run(path: str, environment: Mapping[str, str], stdin: bytes, timeout_s: float) -> Outcome:
    """Run the program at `path` to its end. If the caller is cancelled, it is killed with all its children.

    Raises Unavailable after the timeout, Internal if its output is too large (killed in both cases) or it
    cannot be started, ResourceExhausted.
    """
    try:
        with _file_of(stdin) as source, _Sink(OUTPUT_LIMIT) as out, _Sink(COMPLAINT_LIMIT) as err:
            program = _Program(path, environment, source, out.entry, err.entry)
            try:
                out.listen()
                err.listen()
                await _wait(path, program, out, timeout_s)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_GRACE):
                        await asyncio.gather(out.closed, err.closed)
            finally:
                status = await program.end()
            return Outcome(status, bytes(out.content), bytes(err.content))
    except OSError as error:
        raise errors.kernel_error(f"run {path}", error.errno or 0) from error


async def _wait(path: str, program: _Program, out: _Sink, timeout_s: float) -> None:
    done, _ = await asyncio.wait(
        [program.ended, out.full], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
    )
    if out.full in done:
        raise errors.Internal(f"{path} wrote more than {OUTPUT_LIMIT} bytes and was killed")
    if not done:
        raise errors.Unavailable(f"{path} took longer than {timeout_s:g} s and was killed")


class _Program:
    """A running program, the leader of its own session."""

    def __init__(self, path: str, environment: Mapping[str, str], stdin: int, out: int, err: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._pid = os.posix_spawn(
            path,
            [path],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, stdin, 0),
                (os.POSIX_SPAWN_DUP2, out, 1),
                (os.POSIX_SPAWN_DUP2, err, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=_DEFAULT_AGAIN,
        )
        try:
            self._pidfd = os.pidfd_open(self._pid)
        except OSError:
            os.killpg(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            raise
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._pidfd, self._note_end)

    def _note_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        if not self.ended.done():
            self.ended.set_result(None)

    async def end(self) -> int:
        """Kill it if it still runs, and reap it; returns its status."""
        if not self.ended.done():
            os.killpg(self._pid, signal.SIGKILL)
            await asyncio.wait([self.ended], timeout=_KILL_GRACE)
        self._loop.remove_reader(self._pidfd)
        return self._reap()

    def _reap(self) -> int:
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        finally:
            os.close(self._pidfd)
        if result is None:  # it hangs in the kernel: killed, but not exited yet
            return -signal.SIGKILL
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


class _Sink:
    """The read end of a pipe, read by the event loop."""

    def __init__(self, limit: int) -> None:
        self.content = bytearray()
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._exit, self.entry = os.pipe()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self.full: asyncio.Future[None] = self._loop.create_future()

    def __enter__(self) -> _Sink:
        return self

    def listen(self) -> None:
        """Start reading, after the program got the write end."""
        os.close(self.entry)
        self.entry = -1
        os.set_blocking(self._exit, False)
        self._loop.add_reader(self._exit, self._read)

    def _read(self) -> None:
        try:
            chunk = os.read(self._exit, _CHUNK)
        except BlockingIOError:
            return
        room = self._limit - len(self.content)
        self.content += chunk[:room]
        if len(chunk) > room and not self.full.done():
            self.full.set_result(None)
        if not chunk:
            self._loop.remove_reader(self._exit)
            if not self.closed.done():
                self.closed.set_result(None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.remove_reader(self._exit)
        for fd in (self._exit, self.entry):
            if fd >= 0:
                os.close(fd)


@contextlib.contextmanager
def _file_of(content: bytes) -> Iterator[int]:
    """A file in memory; unlike a pipe it needs no writer."""
    fd = os.memfd_create("cni-request", os.MFD_CLOEXEC)
    try:
        codec.write_all(fd, content)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)

"""Attach: connects a client to the input and output of a container's first process."""

from __future__ import annotations

import asyncio
import contextlib

from phantom_cri import plans
from phantom_cri.errors import FailedPrecondition, NotFound, ResourceExhausted
from phantom_cri.fragments import FragmentLost
from phantom_cri.lifecycle.live import Container
from phantom_cri.lifecycle.running import Running, running
from phantom_cri.lifecycle.runtime import Runtime
from phantom_cri.lifecycle.streams.client_pipes import ClientPipes
from phantom_cri.model import Streams
from phantom_cri.undo import Undo

DEATH_TIMEOUT = 1.0
"""Seconds to wait for the death of a fragment that closed its connection."""


class AttachSession(ClientPipes):
    """`phantom_cri.streaming.Session` of one attached client. The container does not depend on it.

    The fragment copies the output to sockets without ever waiting. The streaming server empties them at once;
    a client that falls behind by more than its backlog and the socket's buffer is detached with an error.
    """

    is_lossy = True

    def __init__(self, container: Container) -> None:
        super().__init__()
        self.container = container
        loop = asyncio.get_running_loop()
        self._left: asyncio.Future[None] = loop.create_future()
        self._detached: asyncio.Future[bool] = loop.create_future()

    async def join(self, target: Running, streams: Streams) -> None:
        config = self.container.record.config
        wants_stdin = streams.stdin and config.stdin
        with plans.Donations() as writers:
            stdout = writers.give("stdout", self.make_roomy_stdout()) if streams.stdout else -1
            wants_stderr = streams.stderr and not config.tty
            stderr = writers.give("stderr", self.make_roomy_stderr()) if wants_stderr else -1
            console, self._detached = await target.fragment.client.attach(
                self.container.id,
                stdout=stdout,
                stderr=stderr,
                console=wants_stdin or config.tty,
                once=wants_stdin and config.stdin_once,
            )
        if config.tty and console >= 0:
            self.take_terminal(console, stdin=wants_stdin, stdout=False)
        else:
            self.stdin = console

    def end_input(self) -> None:
        """As containerd: with stdin_once it closes the container's stdin, else only the client's."""
        config = self.container.record.config
        if config.stdin_once and not config.tty:
            self.close_stdin()
        elif config.stdin and not self._left.done():
            self._left.set_result(None)

    async def wait(self) -> int:
        """Wait for the end of output, or for a client without output for the container's end.

        Raises ResourceExhausted if the client was too slow.
        """
        exited = asyncio.ensure_future(self.container.exited.wait())
        end = self._detached if self.outputs() else exited
        try:
            await asyncio.wait((self._left, end), return_when=asyncio.FIRST_COMPLETED)
        finally:
            exited.cancel()
        if self._detached.done() and not self._left.done():
            await self._tell_detached()
        return 0

    async def _tell_detached(self) -> None:
        try:
            kept_up = self._detached.result()
        except FragmentLost:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DEATH_TIMEOUT):
                    await self.container.exited.wait()
            if not self.container.exited.is_set():
                raise
        else:
            if not kept_up:
                raise ResourceExhausted("attach: detached, the output came faster than the client read it")

    async def close(self) -> None:
        self.close_all()
        self._left.cancel()
        self._detached.cancel()


async def open_attach(runtime: Runtime, container_id: str, streams: Streams) -> AttachSession:
    """Attach to a running container, or to a created one: the client then gets all its output.

    Raises NotFound, FailedPrecondition, ResourceExhausted (too many).
    """
    target = running(runtime, container_id, "attach")
    session = AttachSession(target.container)
    async with Undo("Attach") as undo:
        undo.push("session", session.close)
        if target.container.record.state == "created":
            await _join_before_start(runtime, session, streams)
        else:
            await session.join(target, streams)
        undo.keep()
    return session


async def _join_before_start(runtime: Runtime, session: AttachSession, streams: Streams) -> None:
    """A concurrent start waits for the lock, and so for this attach."""
    container = session.container
    async with container.lock:
        if container.preparation is not None:
            await asyncio.wait((container.preparation,))
        target = running(runtime, container.id, "attach")
        try:
            await session.join(target, streams)
        except NotFound as error:
            raise FailedPrecondition(
                f"attach: container {container.id} could not be prepared, start it first"
            ) from error

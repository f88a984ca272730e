"""Exec and attach for all protocols: a session's descriptors, its terminal's size and its end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Protocol

from phantom_cri.errors import PhantomError
from phantom_cri.streaming import status
from phantom_cri.streaming.backlog import EagerOutflow
from phantom_cri.streaming.client_connection import HIGH_WATER, Link
from phantom_cri.streaming.flows import Budget, Inflow, Outflow
from phantom_cri.streaming.pending import STDERR, STDOUT, PendingStdio, Spawn
from phantom_cri.streaming.session import Session

log = logging.getLogger(__name__)

_RESIZE_LIMIT = 4096
_decode = json.JSONDecoder().raw_decode


class StdioWire(Protocol):
    def send(self, channel: int, chunk: memoryview) -> None: ...

    def end(self, channel: int) -> None:
        """The end of output on this channel."""
        ...

    def finish(self, ending: status.Ending) -> None:
        """Reports the end, then closes the link."""
        ...


class Stdio:
    """Connects a client's wire with its session."""

    def __init__(self, pending: PendingStdio, wire: StdioWire, link: Link) -> None:
        self._pending = pending
        self._wire = wire
        self._inflow = Inflow(Budget(link, HIGH_WATER))
        self._outflows: list[Outflow | EagerOutflow] = []
        self._paused = False
        self._undrained = 0
        self._drained = asyncio.Event()
        self._session: Session | None = None
        self._size: tuple[int, int] | None = None
        self._size_text = bytearray()
        self._task: asyncio.Task[None] | None = None

    # the wire's side

    def begin(self, spawn: Spawn) -> None:
        """The client has created all its streams."""
        self._task = spawn(self._serve())

    def take_input(self, chunk: memoryview) -> None:
        self._inflow.feed(chunk)

    def end_input(self) -> None:
        self._inflow.end(self._tell_end_of_input)

    def take_size(self, chunk: bytes | memoryview) -> None:
        """Concatenated JSON objects, split anywhere. Invalid sizes are ignored."""
        self._size_text += chunk
        if len(self._size_text) > _RESIZE_LIMIT:
            self._size_text.clear()
        while self._size_text:
            try:
                text = self._size_text.decode("latin-1").lstrip()
                size, end = _decode(text)
            except (ValueError, RecursionError):
                return  # incomplete
            self._size_text = bytearray(text[end:].lstrip().encode("latin-1"))
            self._resize(size)

    def pause_output(self) -> None:
        self._paused = True
        for flow in self._outflows:
            flow.pause()

    def resume_output(self) -> None:
        self._paused = False
        for flow in self._outflows:
            flow.resume()

    def gone(self) -> None:
        """The client has disconnected: closes the session."""
        self._disconnect()
        if self._task:
            self._task.cancel()

    # the session's side

    async def _serve(self) -> None:
        try:
            ending = await self._ending()
            for channel in self._pending.outputs:
                self._wire.end(channel)
            self._wire.finish(ending)
        finally:
            await self._close()

    async def _ending(self) -> status.Ending:
        try:
            return await self._run()
        except PhantomError as error:
            # The prefix of other runtimes, which users search for.
            doing = "attaching to container" if self._pending.attach else "executing command in container"
            return status.failed(f"error {doing}: {error}")
        except Exception:
            log.exception("streaming: a session failed")
            return status.failed("the session failed: see the runtime's log")

    async def _run(self) -> status.Ending:
        self._session = session = await self._pending.open_session()
        self._connect(session)
        code = await session.wait()
        for flow in self._outflows:
            flow.finish()
        await self._drained.wait()
        return status.success() if self._pending.attach else status.exited(code)

    def _connect(self, session: Session) -> None:
        if self._size:
            session.resize(*self._size)
        fds = {STDOUT: session.stdout, STDERR: session.stderr}
        for channel in self._pending.outputs:
            if fds[channel] >= 0:
                self._undrained += 1
                flow = EagerOutflow if session.is_lossy else Outflow
                self._outflows.append(flow(fds[channel], *self._takers(channel)))
        if not self._paused:
            self.resume_output()
        if not self._undrained:
            self._drained.set()
        self._inflow.connect(session.stdin if self._pending.stdin else -1)

    def _takers(self, channel: int) -> tuple[Callable[[memoryview], None], Callable[[], None]]:
        """The functions for a session's output on this channel, and for its end."""

        def ended() -> None:
            self._wire.end(channel)
            self._undrained -= 1
            if not self._undrained:
                self._drained.set()

        return lambda chunk: self._wire.send(channel, chunk), ended

    def _disconnect(self) -> None:
        self._inflow.stop()
        for flow in self._outflows:
            flow.stop()

    async def _close(self) -> None:
        self._disconnect()
        session, self._session = self._session, None
        if session:
            try:
                await session.close()
            except PhantomError as error:
                log.warning("streaming: failed to close a session: %s", error)

    def _tell_end_of_input(self) -> None:
        if self._session:
            self._session.end_input()

    def _resize(self, size: object) -> None:
        if not isinstance(size, dict):
            return
        width, height = size.get("Width"), size.get("Height")
        if isinstance(width, int) and isinstance(height, int) and 1 <= width < 65536 and 1 <= height < 65536:
            self._size = width, height
            if self._session:
                self._session.resize(width, height)

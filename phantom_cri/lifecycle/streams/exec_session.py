"""Exec: a command in a running container, connected to a client."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from phantom_cri import plans
from phantom_cri.errors import Internal
from phantom_cri.fragments import Exit
from phantom_cri.lifecycle.live import Container
from phantom_cri.lifecycle.running import leave_exec, new_exec_id, running, start_exec
from phantom_cri.lifecycle.runtime import Runtime, log
from phantom_cri.lifecycle.streams.client_pipes import ClientPipes, all_hung_up
from phantom_cri.model import Streams
from phantom_cri.undo import Undo


class ExecSession(ClientPipes):
    """`phantom_cri.streaming.Session` of an exec, killed with its children when its client disconnects."""

    def __init__(
        self, runtime: Runtime, container: Container, exec_id: str, exits: asyncio.Future[Exit]
    ) -> None:
        super().__init__()
        self._runtime, self._container, self._id, self._exits = runtime, container, exec_id, exits

    def end_input(self) -> None:
        """A terminal has no end of input: the user types it."""
        if self.terminal < 0:
            self.close_stdin()

    async def wait(self) -> int:
        """Wait until the command has ended and its output is closed, or exec.drain_timeout has passed."""
        exit = await asyncio.shield(self._exits)
        if not await all_hung_up(self.outputs(), self._runtime.config.exec.drain_timeout_seconds):
            log.info("a child of an exec keeps its output open: further output is ignored")
        return exit.code

    async def close(self) -> None:
        self.close_all()
        if not self._exits.cancel():
            if not self._exits.cancelled():
                self._exits.exception()  # marks it as retrieved: reported by `wait`, if it was called
            leave_exec(self._runtime, self._container, self._id)
            return
        await self._runtime.cgroups.end_exec_child(self._container.record.cgroup, self._id)


async def open_exec(
    runtime: Runtime, container_id: str, command: Sequence[str], streams: Streams
) -> ExecSession:
    """Start `command`. Raises ExecError if it cannot be executed; nothing is left then."""
    target = running(runtime, container_id, "exec")
    exec_id = new_exec_id()
    async with Undo("Exec") as undo:
        session = ExecSession(runtime, target.container, exec_id, target.fragment.exec_exit(exec_id))
        undo.push("exec", session.close)
        with plans.Donations() as donations:
            if not streams.tty:
                _donate_pipes(session, donations, streams)
            started = await start_exec(runtime, target, exec_id, command, donations, tty=streams.tty)
        if streams.tty:
            if started.console < 0:
                raise Internal(f"exec {exec_id}: the fragment sent no terminal")
            session.take_terminal(started.console, stdin=streams.stdin, stdout=streams.stdout)
        undo.keep()
    return session


def _donate_pipes(session: ExecSession, donations: plans.Donations, streams: Streams) -> None:
    if streams.stdin:
        donations.give("stdin", session.make_stdin())
    if streams.stdout:
        donations.give("stdout", session.make_stdout())
    if streams.stderr:
        donations.give("stderr", session.make_stderr())

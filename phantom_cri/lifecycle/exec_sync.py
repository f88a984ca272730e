"""ExecSync: runs one command in a container, returns its output, kills all its processes at the timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from phantom_cri import plans
from phantom_cri.errors import DeadlineExceeded
from phantom_cri.fragments import Exit
from phantom_cri.lifecycle.running import Running, leave_exec, new_exec_id, running, start_exec
from phantom_cri.lifecycle.runtime import Runtime, log
from phantom_cri.lifecycle.streams.output import Output
from phantom_cri.model import ExecResult
from phantom_cri.undo import Undo


async def exec_sync(
    runtime: Runtime, container_id: str, command: Sequence[str], timeout_s: int
) -> ExecResult:
    """Run `command`; a non-zero exit code is a result, not an error.

    Each stream is truncated at the configured limit, but drained, so that the command never blocks. After
    `timeout_s` (0: never) the command and all its children are killed: DeadlineExceeded. If a child keeps the
    output open after the command's end, it is waited for no longer than exec.drain_timeout.
    """
    target = running(runtime, container_id, "exec")
    exec_id = new_exec_id()
    async with Undo("ExecSync") as undo:
        result = await _run(runtime, target, exec_id, command, timeout_s or None, undo)
        undo.keep()
    leave_exec(runtime, target.container, exec_id)
    return result


async def _run(
    runtime: Runtime, target: Running, exec_id: str, command: Sequence[str], seconds: float | None, undo: Undo
) -> ExecResult:
    cgroup, limit = target.container.record.cgroup, runtime.config.exec.output_limit_bytes
    exits = target.fragment.exec_exit(exec_id)
    undo.push("exit", exits.cancel)
    undo.push("exec", lambda: runtime.cgroups.end_exec_child(cgroup, exec_id))
    with Output(limit) as stdout, Output(limit) as stderr, plans.Donations() as donations:
        donations.give("stdout", stdout.take_writer())
        donations.give("stderr", stderr.take_writer())
        await start_exec(runtime, target, exec_id, command, donations)
        donations.close()
        exit = await _finish(exits, seconds, command)
        await _drain(runtime, stdout, stderr)
        return ExecResult(stdout=stdout.content(), stderr=stderr.content(), exit_code=exit.code)


async def _finish(exits: asyncio.Future[Exit], seconds: float | None, command: Sequence[str]) -> Exit:
    try:
        async with asyncio.timeout(seconds):
            return await exits
    except TimeoutError:
        raise DeadlineExceeded(f"command {command[0]!r} timed out after {seconds:.0f} s") from None


async def _drain(runtime: Runtime, *outputs: Output) -> None:
    try:
        async with asyncio.timeout(runtime.config.exec.drain_timeout_seconds):
            for output in outputs:
                await output.closed()
    except TimeoutError:
        log.info("a child of an exec keeps its output open: further output is ignored")

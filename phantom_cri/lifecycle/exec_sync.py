"""ExecSync: one command in a running container, its output caught, killed whole when time is up."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Sequence

from phantom_cri import launch
from phantom_cri.errors import DeadlineExceeded, Internal, InvalidArgument, PhantomError
from phantom_cri.launch import Exit
from phantom_cri.lifecycle import states
from phantom_cri.lifecycle.container_launch import exec_launch
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.node import Node, log
from phantom_cri.lifecycle.output import Output
from phantom_cri.lifecycle.undo import Undo
from phantom_cri.model import ExecResult


async def exec_sync(node: Node, container_id: str, command: Sequence[str], timeout_s: int) -> ExecResult:
    """Run `command`; a non-zero exit code is a result, not an error.

    Each stream is cut at the configured limit and drained further, so that the command never
    blocks. After `timeout_s` (0: never) the command and all its children are killed:
    DeadlineExceeded. A child left behind that holds the output open is waited for no longer
    than exec.drain_timeout.
    """
    if not command:
        raise InvalidArgument("cmd: must not be empty")
    container = node.records.container(container_id)
    states.next_container_state(container.record.state, "exec", container.id)
    pod = node.records.pod_of(container)
    if timeout_s < 0:
        raise InvalidArgument(f"timeout: must not be negative, got {timeout_s}")
    exec_id = f"exec-{secrets.token_hex(16)}"
    async with Undo("ExecSync") as undo:
        result = await _run(node, pod, container, exec_id, command, timeout_s or None, undo)
        undo.keep()
    try:
        node.cgroups.leave_exec_child(container.record.cgroup, exec_id)
    except PhantomError as error:
        log.warning("the cgroup of an exec goes with its container only: %s", error)
    return result


async def _run(
    node: Node,
    pod: Pod,
    container: Container,
    exec_id: str,
    command: Sequence[str],
    seconds: float | None,
    undo: Undo,
) -> ExecResult:
    cgroup, limit = container.record.cgroup, node.config.exec.output_limit_bytes
    if pod.shell is None:
        raise Internal(f"container {container.id} runs but its pod has no fragment")
    exits = pod.shell.exec_exit(exec_id)
    undo.push("exit", exits.cancel)
    undo.push("exec", lambda: node.cgroups.end_exec_child(cgroup, exec_id))
    with Output(limit) as stdout, Output(limit) as stderr, launch.Donations() as donations:
        with node.cgroups.exec_child(cgroup, exec_id) as fds:
            if fds.clone_into is not None:
                donations.lend("cgroup", fds.clone_into)
            for index, procs in enumerate(fds.procs):
                donations.lend(f"procs{index}", procs)
            donations.give("stdout", stdout.take_writer())
            donations.give("stderr", stderr.take_writer())
            plan = launch.exec_plan(exec_launch(node, pod, container, command), donations.names())
            started = await pod.shell.fragment.start(exec_id, plan, donations)
            os.close(started.pidfd)
        donations.close()
        exit = await _finish(exits, seconds, command)
        await _drain(node, stdout, stderr)
        return ExecResult(stdout=stdout.content(), stderr=stderr.content(), exit_code=exit.code)


async def _finish(exits: asyncio.Future[Exit], seconds: float | None, command: Sequence[str]) -> Exit:
    try:
        async with asyncio.timeout(seconds):
            return await exits
    except TimeoutError:
        raise DeadlineExceeded(f"command {command[0]!r} timed out after {seconds:.0f} s") from None


async def _drain(node: Node, *outputs: Output) -> None:
    try:
        async with asyncio.timeout(node.config.exec.drain_timeout_seconds):
            for output in outputs:
                await output.closed()
    except TimeoutError:
        log.info("a child of an exec keeps its output open: what it writes from now on is lost")

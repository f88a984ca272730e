"""Running containers, and starting execs in them: shared by ExecSync, Exec and Attach."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from phantom_cri import fragments, plans
from phantom_cri.errors import FailedPrecondition, NotFound, PhantomError
from phantom_cri.fragments.handle import DEATH_TIMEOUT, FragmentHandle
from phantom_cri.lifecycle import states
from phantom_cri.lifecycle.container_spec import exec_launch
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.runtime import Runtime, log
from phantom_cri.lifecycle.states import ContainerVerb


class Running(NamedTuple):
    container: Container
    pod: Pod
    fragment: FragmentHandle


def running(runtime: Runtime, container_id: str, verb: ContainerVerb) -> Running:
    """Raises NotFound, FailedPrecondition naming the state."""
    container = runtime.records.container(container_id)
    states.next_container_state(container.record.state, verb, container.id)
    pod = runtime.records.pod_of(container)
    if pod.fragment is None:
        raise FailedPrecondition(f"cannot {verb} container {container.id}: pod sandbox {pod.id} has ended")
    pod.check_version()
    return Running(container, pod, pod.fragment)


def new_exec_id() -> str:
    return f"exec-{secrets.token_hex(16)}"


async def start_exec(
    runtime: Runtime,
    target: Running,
    exec_id: str,
    command: Sequence[str],
    donations: plans.Donations,
    *,
    tty: bool = False,
) -> fragments.Started:
    """Start `command` in a cgroup of its own below the container's; its pidfd is closed already.

    `donations`: "stdin", "stdout", "stderr" as needed; none of them with `tty`. The caller has to end the
    cgroup, also after an error.
    """
    container = target.container
    with runtime.cgroups.exec_child(container.record.cgroup, exec_id) as fds:
        if fds.clone_into is not None:
            donations.lend("cgroup", fds.clone_into)
        for index, procs in enumerate(fds.procs):
            donations.lend(f"procs{index}", procs)
        wanted = exec_launch(runtime, target.pod, container, command, tty=tty)
        plan = plans.exec_plan(wanted, donations.names())
        try:
            started = await target.fragment.client.start(exec_id, plan, donations)
        except fragments.ExecError:
            raise
        except (fragments.LaunchError, fragments.FragmentLost, NotFound) as error:
            if await _is_over(container):
                raise FailedPrecondition(
                    f"cannot exec in container {container.id}: it has just ended"
                ) from error
            raise
    os.close(started.pidfd)
    return started


async def _is_over(container: Container) -> bool:
    """Whether it ended during the exec, for which the kernel has many different errors."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEATH_TIMEOUT):
            await container.exited.wait()
    return container.exited.is_set()


def leave_exec(runtime: Runtime, container: Container, exec_id: str) -> None:
    """The command has ended; children that still run now belong to the container."""
    try:
        runtime.cgroups.leave_exec_child(container.record.cgroup, exec_id)
    except PhantomError as error:
        log.warning(
            "failed to remove the cgroup of an exec, it will be removed with the container: %s", error
        )

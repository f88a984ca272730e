"""StartContainer: releases the prepared process; the fragment answers when its execve has succeeded."""

from __future__ import annotations

import errno
import time

from phantom_cri import codec
from phantom_cri.concurrency import to_the_end
from phantom_cri.errors import FailedPrecondition, Internal, PhantomError
from phantom_cri.fragments import LaunchError
from phantom_cri.fragments.handle import FragmentHandle
from phantom_cri.lifecycle import endings, states
from phantom_cri.lifecycle.cleanup import end_process, release_cgroup
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.prepare import prepared
from phantom_cri.lifecycle.runtime import Runtime, log
from phantom_cri.undo import Undo

START_ERROR = 128
"""Exit code of a container that could not be started, as containerd reports it."""


async def start_container(runtime: Runtime, container_id: str) -> None:
    """Start a created container. A failed start leaves it exited, with code 128 and reason StartError."""
    container = runtime.records.container(container_id)
    pod = runtime.records.pod_of(container)
    async with container.lock:
        runtime.records.container(container.id)  # it may have been removed while this call waited
        if container.record.started_at and runtime.records.sent_again(container.id):
            return  # it may even have ended before the caller got an answer
        states.next_container_state(container.record.state, "start", container.id)
        states.next_sandbox_state(pod.record.state, "start container in", pod.id)
        pod.check_version()
        fragment = pod.fragment
        if fragment is None:
            raise Internal(f"pod sandbox {pod.id} is ready but has no fragment")
        container.starting = True
        try:
            # A released process cannot be taken back: if the client disconnects, it finds the container
            # running.
            await to_the_end(start(runtime, pod, fragment, container))
        except PhantomError as error:
            failure = _cut_off(pod, fragment, container, error) or error
            record_failure(runtime, container, failure)
            raise failure from error.__cause__
        finally:
            container.starting = False
        catch_up(runtime, pod, container)


def _cut_off(
    pod: Pod, fragment: FragmentHandle, container: Container, error: PhantomError
) -> PhantomError | None:
    """The error for a start interrupted by a stop, for which fragment and kernel have various errors."""
    if pod.stopping or not fragment.alive():
        return FailedPrecondition(
            f"cannot start container {container.id}: pod sandbox {pod.id} has just ended"
        )
    if isinstance(error, LaunchError) and error.number == errno.ECHILD:
        return FailedPrecondition(f"{error}: stopped during the start, or too little memory")
    return None


async def start(runtime: Runtime, pod: Pod, fragment: FragmentHandle, container: Container) -> None:
    stages = runtime.stages("start")
    async with Undo("StartContainer") as undo:
        with stages.stage("prepared"):
            plan = await prepared(runtime, pod, fragment, container)
        undo.push("cgroup", lambda: release_cgroup(runtime, container))
        undo.push("process", lambda: end_process(fragment, container))
        with stages.stage("execve"):
            started = await fragment.client.go(container.id, plan)
            started.close()
        container.record = codec.replace(
            container.record,
            state="running",
            started_at=started.started_at or time.time_ns(),
            process=started.process,
        )
        with stages.stage("record"):
            runtime.records.save_container(container)
        undo.keep()
    runtime.events.emit("started", pod, container.id)
    runtime.observe(pod, stages)
    log.info("container %s started", container.id, extra={"sandbox_id": pod.id, "container_id": container.id})


def record_failure(runtime: Runtime, container: Container, error: PhantomError) -> None:
    container.record = codec.replace(
        container.record,
        state=states.next_container_state(container.record.state, "exit", container.id),
        exit_code=START_ERROR,
        finished_at=time.time_ns(),
        reason="StartError",
        message=str(error),
    )
    container.exited.set()
    with endings.unsaved("container", container.id):
        runtime.records.save_container(container)
    runtime.events.emit("stopped", runtime.records.pod_of(container), container.id)


def catch_up(runtime: Runtime, pod: Pod, container: Container) -> None:
    """Handle an exit, or the pod's death, that was reported before the start was recorded."""
    early = pod.fragment.take_early_exit(container.id) if pod.fragment else None
    if early is not None:
        endings.container_exited(runtime, container.id, early)
    elif pod.record.state != "ready" and container.record.state == "running":
        endings.container_exited(runtime, container.id, endings.last_exit(runtime, container))

"""StartContainer: lets the prepared process go; the fragment answers once its execve succeeded."""

from __future__ import annotations

import errno
import os
import time

from phantom_cri import codec
from phantom_cri.concurrency import to_the_end
from phantom_cri.errors import FailedPrecondition, Internal, PhantomError
from phantom_cri.fragments import LaunchError
from phantom_cri.fragments.handle import Shell
from phantom_cri.lifecycle import endings, states
from phantom_cri.lifecycle.cleanup import end_process, release_cgroup
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.node import Node, log
from phantom_cri.lifecycle.prepare import prepared
from phantom_cri.lifecycle.undo import Undo

START_ERROR = 128
"""Exit code of a container that could not be started, as containerd reports it."""


async def start_container(node: Node, container_id: str) -> None:
    """Start a created container. A failed start leaves it exited, with code 128 and reason StartError."""
    container = node.records.container(container_id)
    pod = node.records.pod_of(container)
    async with container.lock:
        node.records.container(container.id)  # it may have been removed while this call waited
        if container.record.started_at and node.records.sent_again(container.id):
            return  # it may even have ended, before its caller could hear of the start
        states.next_container_state(container.record.state, "start", container.id)
        states.next_sandbox_state(pod.record.state, "start container in", pod.id)
        pod.check_version()
        shell = pod.shell
        if shell is None:
            raise Internal(f"pod sandbox {pod.id} is ready but has no fragment")
        container.starting = True
        try:
            # Whether the process has been let go cannot be taken back: a client that leaves finds it running.
            await to_the_end(start(node, pod, shell, container))
        except PhantomError as error:
            failure = _cut_off(pod, shell, container, error) or error
            record_failure(node, container, failure)
            raise failure from error.__cause__
        finally:
            container.starting = False
        catch_up(node, pod, container)


def _cut_off(pod: Pod, shell: Shell, container: Container, error: PhantomError) -> PhantomError | None:
    """What to tell of a start that somebody else has ended: fragment and kernel say it in many ways."""
    if pod.stopping or not shell.alive():
        return FailedPrecondition(
            f"cannot start container {container.id}: pod sandbox {pod.id} has just ended"
        )
    if isinstance(error, LaunchError) and error.number == errno.ECHILD:
        return FailedPrecondition(f"{error}: it was stopped meanwhile, or has too little memory")
    return None


async def start(node: Node, pod: Pod, shell: Shell, container: Container) -> None:
    stages = node.stages("start")
    async with Undo("StartContainer") as undo:
        with stages.stage("prepared"):
            plan = await prepared(node, pod, shell, container)
        undo.push("cgroup", lambda: release_cgroup(node, container))
        undo.push("process", lambda: end_process(shell, container))
        with stages.stage("execve"):
            started = await shell.fragment.go(container.id, plan)
            os.close(started.pidfd)
            if started.console >= 0:
                os.close(started.console)
        container.record = codec.replace(
            container.record,
            state="running",
            started_at=started.started_at or time.time_ns(),
            process=started.process,
        )
        with stages.stage("record"):
            node.records.save_container(container)
        undo.keep()
    node.events.emit("started", pod, container.id)
    node.observe(pod, stages)
    log.info(
        "container %s is running", container.id, extra={"sandbox_id": pod.id, "container_id": container.id}
    )


def record_failure(node: Node, container: Container, error: PhantomError) -> None:
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
        node.records.save_container(container)
    node.events.emit("stopped", node.records.pod_of(container), container.id)


def catch_up(node: Node, pod: Pod, container: Container) -> None:
    """An exit, or the pod's death, that came before we had recorded the start."""
    early = pod.shell.take_early_exit(container.id) if pod.shell else None
    if early is not None:
        endings.container_exited(node, container.id, early)
    elif pod.record.state != "ready" and container.record.state == "running":
        endings.container_exited(node, container.id, endings.last_exit(node, container))

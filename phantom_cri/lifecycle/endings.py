"""Ends of processes and pods: exits reported by a fragment, its death, releasing a pod's resources."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from phantom_cri import codec
from phantom_cri.fragments import Exit
from phantom_cri.fragments.folder import exit_path, stored_exit
from phantom_cri.lifecycle.checkpoints import give_up_checkpoint
from phantom_cri.lifecycle.cleanup import give_up_preparation, release_cgroup
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.runtime import Runtime, log
from phantom_cri.lifecycle.states import next_container_state, next_sandbox_state
from phantom_cri.model import ContainerRecord


def watch_pod(runtime: Runtime, pod: Pod) -> None:
    """Subscribe the pod to its processes' exits and its fragment's death."""
    if pod.fragment is None:
        return
    pod.fragment.on_exit = lambda container_id, exit: container_exited(runtime, container_id, exit)
    pod.fragment.on_death = lambda: pod_died(runtime, pod)
    if not pod.fragment.alive():
        pod_died(runtime, pod)


def container_exited(runtime: Runtime, container_id: str, exit: Exit) -> None:
    """Record an exit and wake those that wait for it. Exits of execs are not recorded."""
    container = runtime.records.containers.get(container_id)
    if container is None or container.exited.is_set():
        return
    if container.starting:
        fragment = runtime.records.pod_of(container).fragment
        if fragment is not None:
            fragment.keep_early_exit(container_id, exit)
        return
    container.record = with_exit(container.record, exit)
    container.exited.set()
    with unsaved("container", container_id):
        runtime.records.save_container(container)
    runtime.events.emit("stopped", runtime.records.pod_of(container), container_id)
    log.info(
        "container %s exited with code %d", container_id, exit.code, extra={"container_id": container_id}
    )


@contextmanager
def unsaved(kind: str, object_id: str) -> Iterator[None]:
    """Ignore, with an error in the log, a record that cannot be written: a later daemon asks the fragment."""
    try:
        yield
    except OSError as error:
        log.error("failed to record the end of %s %s: %s", kind, object_id, error.strerror)


def with_exit(record: ContainerRecord, exit: Exit) -> ContainerRecord:
    # As containerd: if any process of the container was OOM-killed, whatever its first process did.
    reason = "OOMKilled" if exit.oom else "Error" if exit.code else "Completed"
    started_at = exit.started_at or record.started_at
    return codec.replace(
        record,
        state=next_container_state(record.state, "exit", record.id),
        exit_code=exit.code,
        started_at=started_at,
        finished_at=max(started_at, exit.finished_at or time.time_ns()),  # the clock may have been set back
        reason=reason,
    )


def pod_died(runtime: Runtime, pod: Pod) -> None:
    """The fragment has died, and the kernel has killed all processes of its pid namespace."""
    was_ready = pod.record.state == "ready"
    if was_ready:
        pod.record = codec.replace(pod.record, state=next_sandbox_state(pod.record.state, "die", pod.id))
        with unsaved("pod sandbox", pod.id):
            runtime.records.save_pod(pod)
    if not pod.stopping:
        log.warning("the fragment of pod sandbox %s died", pod.id, extra={"sandbox_id": pod.id})
    for container in list(pod.containers.values()):
        if container.record.state == "running":
            container_exited(runtime, container.id, last_exit(runtime, container))
    if was_ready:
        runtime.events.emit("stopped", pod, pod.id)


def has_exit(runtime: Runtime, container: Container) -> bool:
    return os.path.exists(exit_path(_folder(runtime, container), container.id))


def last_exit(runtime: Runtime, container: Container) -> Exit:
    return stored_exit(_folder(runtime, container), container.id)


def _folder(runtime: Runtime, container: Container) -> str:
    return runtime.records.pod_folder(container.record.sandbox_id)


def leave_pool(runtime: Runtime, pod: Pod) -> None:
    """Decrement the pool's count of claimed fragments."""
    pool = runtime.pool_of(pod)
    if pool is not None and pool.claimed:
        pool.claimed -= 1


async def end_pod(runtime: Runtime, pod: Pod) -> None:
    """Kill all of the pod and release its resources except its records; the caller holds its lock."""
    pod.stopping = True
    for container in pod.containers.values():
        await give_up_checkpoint(container)
    if pod.fragment is not None:
        await pod.fragment.end()
    pod_died(runtime, pod)
    for container in list(pod.containers.values()):
        await give_up_preparation(pod, container)
        if pod.record.config.security.namespaces.pid == "node" and container.has_cgroup:
            await runtime.cgroups.kill_async(
                container.record.cgroup
            )  # outside of the fragment's pid namespace, so not killed with it
        await release_cgroup(runtime, container)
    if not pod.released:
        await runtime.network.release(pod.id)
        leave_pool(runtime, pod)
        pod.released = True
    pod.fragment = None

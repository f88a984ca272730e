"""StopContainer: the stop signal once, a grace period, then SIGKILL for all its processes.

Takes no lock while a container runs: a second caller with a shorter grace period must be able to
shorten the first one's, and removal must not wait for it.
"""

from __future__ import annotations

import asyncio
import signal

from phantom_cri.errors import Internal, PhantomError
from phantom_cri.lifecycle.checkpoints import give_up_checkpoint
from phantom_cri.lifecycle.cleanup import give_up_preparation, release_cgroup
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.runtime import Runtime, log
from phantom_cri.requests import signal_number

KILL_TIMEOUT = 10.0
"""Seconds after SIGKILL in which the processes must have exited."""


async def stop_container(runtime: Runtime, container_id: str, timeout_s: int) -> None:
    """Returns when the container has exited; at once if it never ran or is unknown."""
    container = runtime.records.find_container(container_id)
    if container is None:
        return
    pod = runtime.records.pod_of(container)
    if not container.exited.is_set():
        pod.check_version()
    await give_up_checkpoint(container)
    if container.record.state == "running" and timeout_s > 0:
        await ask_to_stop(pod, container)
        try:
            async with asyncio.timeout(timeout_s):
                await container.exited.wait()
        except TimeoutError:
            log.info("container %s did not stop within %d s, killing it", container.id, timeout_s)
    await kill(runtime, pod, container)
    log.info("container %s stopped", container.id, extra={"container_id": container.id})


async def ask_to_stop(pod: Pod, container: Container) -> None:
    if container.stop_sent or pod.fragment is None:
        return
    container.stop_sent = True
    await _signal(pod, container, signal_number(container.record.stop_signal), all_processes=False)


async def kill(runtime: Runtime, pod: Pod, container: Container) -> None:
    """SIGKILL every process of the container, and wait until it has exited."""
    await give_up_checkpoint(container)
    is_idle = not container.starting and container.record.state != "running"
    if is_idle and await _gave_up(runtime, pod, container):
        return
    await _signal(pod, container, signal.SIGKILL, all_processes=True)
    if container.starting:
        async with container.lock:  # the start fails now, with an error for its caller
            pass
        if container.record.state != "running":
            return
        await _signal(pod, container, signal.SIGKILL, all_processes=True)
    try:
        async with asyncio.timeout(KILL_TIMEOUT):
            await container.exited.wait()
    except TimeoutError:
        raise Internal(
            f"container {container.id} still runs {KILL_TIMEOUT:.0f} s after SIGKILL: "
            "a process of it hangs in the kernel"
        ) from None
    await release_cgroup(runtime, container)


async def _gave_up(runtime: Runtime, pod: Pod, container: Container) -> bool:
    """Release the resources of a container that does not run; False if a start was faster."""
    async with container.lock:  # a concurrent start must not use the cgroup while it is being removed
        if container.record.state == "running":
            return False
        await give_up_preparation(pod, container)
        await release_cgroup(runtime, container)
        return True


async def _signal(pod: Pod, container: Container, number: int, *, all_processes: bool) -> None:
    if pod.fragment is None:
        return
    try:
        await pod.fragment.client.signal(container.id, number, all_processes=all_processes)
    except PhantomError:
        # It is already gone; its exit, or the fragment's death, will be reported.
        if pod.fragment is not None and pod.fragment.alive() and not container.exited.is_set():
            log.debug("signal %d for container %s was refused", number, container.id)

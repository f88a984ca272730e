"""RemoveContainer: kill if need be, then forget. Succeeds for an unknown id."""

from __future__ import annotations

from phantom_cri.lifecycle.cleanup import forget_process, release_cgroup
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.runtime import Runtime, log
from phantom_cri.lifecycle.stop_container import kill


async def remove_container(runtime: Runtime, container_id: str) -> None:
    container = runtime.records.find_container(container_id)
    if container is None:
        return
    pod = runtime.records.pod_of(container)
    pod.check_version()
    while container.id in runtime.records.containers:
        await kill(runtime, pod, container)
        async with container.lock:
            # a start that came first may have made it run meanwhile
            if container.id in runtime.records.containers and container.record.state != "running":
                await discard(runtime, pod, container)
    log.info("container %s is removed", container.id, extra={"container_id": container.id})


async def discard(runtime: Runtime, pod: Pod, container: Container) -> None:
    """Give back all of a container that no longer runs; the caller holds its lock."""
    await release_cgroup(runtime, container)
    runtime.images.drop_snapshot(container.id)
    if pod.fragment is not None and pod.fragment.alive():
        await forget_process(pod.fragment, container)
    runtime.records.forget_container(container)
    runtime.events.emit("deleted", pod, container.id)

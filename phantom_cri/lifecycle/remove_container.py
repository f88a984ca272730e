"""RemoveContainer: kills it if it runs, then removes it. Succeeds for an unknown id."""

from __future__ import annotations

from phantom_cri.lifecycle.cleanup import discard
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
            # a concurrent start may have succeeded
            if container.id in runtime.records.containers and container.record.state != "running":
                await discard(runtime, pod, container)
    log.info("container %s removed", container.id, extra={"container_id": container.id})

"""RemoveContainer: kill if need be, then forget. Succeeds for an unknown id."""

from __future__ import annotations

from phantom_cri.lifecycle.cleanup import discard
from phantom_cri.lifecycle.node import Node, log
from phantom_cri.lifecycle.stop_container import kill


async def remove_container(node: Node, container_id: str) -> None:
    container = node.records.find_container(container_id)
    if container is None:
        return
    pod = node.records.pod_of(container)
    pod.check_version()
    while container.id in node.records.containers:
        await kill(node, pod, container)
        async with container.lock:
            # a start that came first may have made it run meanwhile
            if container.id in node.records.containers and container.record.state != "running":
                await discard(node, pod, container)
    log.info("container %s is removed", container.id, extra={"container_id": container.id})

"""RemovePodSandbox. Idempotent; succeeds for an unknown id."""

from __future__ import annotations

from phantom_cri.lifecycle import endings
from phantom_cri.lifecycle.cleanup import discard, remove_folder
from phantom_cri.lifecycle.node import Node, log


async def remove_pod_sandbox(node: Node, sandbox_id: str) -> None:
    """Stop it if need be and forget it with all its containers. Log files belong to the caller."""
    pod = node.records.find_pod(sandbox_id)
    if pod is None:
        return
    async with pod.lock:
        if pod.id not in node.records.pods:
            return
        await endings.end_pod(node, pod)
        for container in list(pod.containers.values()):
            async with container.lock:
                await discard(node, pod, container)
        remove_folder(node.records.pod_folder(pod.id))
        node.records.forget_pod(pod)
        node.selinux.release(pod.id, pod.record.selinux)
        node.events.emit("deleted", pod, pod.id)
    log.info("pod sandbox %s is removed", pod.id, extra={"sandbox_id": pod.id})

"""RemovePodSandbox. Idempotent; succeeds for an unknown id."""

from __future__ import annotations

from phantom_cri.lifecycle import endings
from phantom_cri.lifecycle.cleanup import discard, remove_folder
from phantom_cri.lifecycle.runtime import Runtime, log


async def remove_pod_sandbox(runtime: Runtime, sandbox_id: str) -> None:
    """Stop it if it runs and remove it with all its containers. Log files belong to the caller."""
    pod = runtime.records.find_pod(sandbox_id)
    if pod is None:
        return
    async with pod.lock:
        if pod.id not in runtime.records.pods:
            return
        await endings.end_pod(runtime, pod)
        for container in list(pod.containers.values()):
            async with container.lock:
                await discard(runtime, pod, container)
        remove_folder(runtime.records.pod_folder(pod.id))
        runtime.records.forget_pod(pod)
        runtime.selinux.release(pod.id, pod.record.selinux)
        runtime.events.emit("deleted", pod, pod.id)
    log.info("pod sandbox %s removed", pod.id, extra={"sandbox_id": pod.id})

"""StopPodSandbox. Idempotent; succeeds for an unknown id."""

from __future__ import annotations

from phantom_cri.lifecycle import endings
from phantom_cri.lifecycle.runtime import Runtime, log


async def stop_pod_sandbox(runtime: Runtime, sandbox_id: str) -> None:
    """End every process of the pod and release its network; its records stay.

    Takes only the pod's lock: a container's verb that hangs in the kernel ends when the fragment is killed.
    """
    pod = runtime.records.find_pod(sandbox_id)
    if pod is None:
        return
    async with pod.lock:
        if pod.released:
            return
        await endings.end_pod(runtime, pod)
        runtime.records.save_pod(pod)
    log.info("pod sandbox %s stopped", pod.id, extra={"sandbox_id": pod.id})

"""UpdatePodSandboxResources: records the limits of the pod as a whole."""

from __future__ import annotations

from phantom_cri import codec
from phantom_cri.lifecycle.runtime import Runtime
from phantom_cri.model import Resources
from phantom_cri.requests import with_changes


async def update_pod_sandbox_resources(
    runtime: Runtime, sandbox_id: str, overhead: Resources | None, resources: Resources | None
) -> None:
    """Record the pod's new limits. Its cgroup belongs to the kubelet, which changes it itself."""
    pod = runtime.records.pod(sandbox_id)
    async with pod.lock:
        pod.check_records()
        for value in filter(None, (overhead, resources)):
            runtime.cgroups.check(value)
        pod.record = codec.replace(
            pod.record,
            overhead=with_changes(pod.record.overhead or Resources(), overhead or Resources()),
            resources=with_changes(pod.record.resources or Resources(), resources or Resources()),
        )
        runtime.records.save_pod(pod)

"""UpdateContainerResources: changes a container's limits, whether or not it runs."""

from __future__ import annotations

import asyncio

from phantom_cri import codec
from phantom_cri.concurrency import to_the_end
from phantom_cri.lifecycle import states
from phantom_cri.lifecycle.live import Container
from phantom_cri.lifecycle.runtime import Runtime
from phantom_cri.model import Resources
from phantom_cri.requests import with_changes
from phantom_cri.undo import Undo


async def update_container_resources(runtime: Runtime, container_id: str, change: Resources) -> None:
    """Apply the fields of `change` that are set; all of them or, if one is refused, none."""
    container = runtime.records.container(container_id)
    async with container.lock:
        runtime.records.container(container.id)  # it may have been removed while this call waited
        states.next_container_state(container.record.state, "update", container.id)
        runtime.records.pod_of(container).check_records()
        if container.record.state == "running":
            # Each process has inherited its own value (proc(5)), so there is no single one to change.
            change = codec.replace(change, oom_score_adj=0)
        merged = with_changes(container.record.resources, change)
        runtime.cgroups.check(merged)
        if container.preparation is not None:
            await asyncio.wait([container.preparation])
        # A thread may wait for the kernel to reclaim memory, which cannot be cancelled when the client
        # leaves.
        await to_the_end(change_resources(runtime, container, merged))


async def change_resources(runtime: Runtime, container: Container, merged: Resources) -> None:
    async with Undo("UpdateContainerResources") as undo:
        before = container.record.resources
        undo.push("record", lambda: record_resources(runtime, container, before))
        record_resources(runtime, container, merged)
        if container.has_cgroup:
            await runtime.cgroups.update_async(container.record.cgroup, merged)
        undo.keep()


def record_resources(runtime: Runtime, container: Container, resources: Resources) -> None:
    container.record = codec.replace(container.record, resources=resources)
    runtime.records.save_container(container)

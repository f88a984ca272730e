"""What may change while a pod runs: resources of it and its containers, and where a log goes."""

from __future__ import annotations

import asyncio
import os

from phantom_cri import codec
from phantom_cri.concurrency import to_the_end
from phantom_cri.errors import FailedPrecondition
from phantom_cri.fragments import FragmentLost
from phantom_cri.lifecycle import states
from phantom_cri.lifecycle.live import Container
from phantom_cri.lifecycle.prepare import open_log
from phantom_cri.lifecycle.runtime import Runtime
from phantom_cri.lifecycle.undo import Undo
from phantom_cri.model import Resources


async def update_container_resources(runtime: Runtime, container_id: str, change: Resources) -> None:
    """Apply the fields of `change` that are set; all of them or, when one is refused, none."""
    container = runtime.records.container(container_id)
    async with container.lock:
        runtime.records.container(container.id)  # it may have been removed while this call waited
        states.next_container_state(container.record.state, "update", container.id)
        runtime.records.pod_of(container).check_records()
        if container.record.state == "running":
            # Each process has inherited its own by now (proc(5)): there is no longer one value to change.
            change = codec.replace(change, oom_score_adj=0)
        merged = merge(container.record.resources, change)
        runtime.cgroups.check(merged)
        if container.preparation is not None:
            await asyncio.wait([container.preparation])
        # The kernel may be reclaiming memory on a thread: a client that leaves cannot stop that half-way.
        await to_the_end(change_resources(runtime, container, merged))


async def change_resources(runtime: Runtime, container: Container, merged: Resources) -> None:
    async with Undo("UpdateContainerResources") as undo:
        before = container.record.resources
        undo.push("record", lambda: record_resources(runtime, container, before))
        record_resources(runtime, container, merged)
        if container.has_cgroup:
            await runtime.cgroups.update_async(container.record.cgroup, merged)
        undo.keep()


async def update_pod_sandbox_resources(
    runtime: Runtime, sandbox_id: str, overhead: Resources | None, resources: Resources | None
) -> None:
    """Note what the pod may use from now on. Its cgroup is the kubelet's own, who changes it by itself."""
    pod = runtime.records.pod(sandbox_id)
    async with pod.lock:
        pod.check_records()
        for value in filter(None, (overhead, resources)):
            runtime.cgroups.check(value)
        pod.record = codec.replace(
            pod.record,
            overhead=merge(pod.record.overhead or Resources(), overhead or Resources()),
            resources=merge(pod.record.resources or Resources(), resources or Resources()),
        )
        runtime.records.save_pod(pod)


def record_resources(runtime: Runtime, container: Container, resources: Resources) -> None:
    container.record = codec.replace(container.record, resources=resources)
    runtime.records.save_container(container)


def merge(current: Resources, change: Resources) -> Resources:
    """`current` with every field that `change` sets (not 0, not empty).

    Swap beyond memory stays as much as it was when only the memory limit changes: CRI counts them together.
    """
    fields = {name: getattr(change, name) for name in change.__struct_fields__}
    changed = {name: value for name, value in fields.items() if value}
    swap = current.memory_swap_limit - current.memory_limit
    if change.memory_limit and not change.memory_swap_limit and current.memory_swap_limit > 0:
        changed["memory_swap_limit"] = change.memory_limit + swap if change.memory_limit > 0 else 0
    if change.hugepage_limits:
        sizes = {one.page_size: one for one in (*current.hugepage_limits, *change.hugepage_limits)}
        changed["hugepage_limits"] = tuple(sizes.values())
    if change.unified:
        changed["unified"] = {**current.unified, **change.unified}
    return codec.replace(current, **changed)


async def reopen_container_log(runtime: Runtime, container_id: str) -> None:
    """Switch the log to a file freshly opened at the same path; it exists on return."""
    container = runtime.records.container(container_id)
    pod = runtime.records.pod_of(container)
    async with container.lock:
        states.next_container_state(container.record.state, "reopen log", container.id)
        if not container.record.log_path or pod.fragment is None:
            raise FailedPrecondition(f"cannot reopen log of container {container.id}: it has none")
        fd = open_log(container.record.log_path)
        try:
            await pod.fragment.client.reopen_log(container.id, fd)
        except FragmentLost as error:
            if not pod.stopping:
                raise
            raise FailedPrecondition(
                f"cannot reopen log of container {container.id}: pod sandbox {pod.id} has just ended"
            ) from error
        finally:
            os.close(fd)

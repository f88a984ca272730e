"""UpdateContainerResources and ReopenContainerLog: what may change while a container runs."""

from __future__ import annotations

import asyncio
import os

from phantom_cri import codec
from phantom_cri.errors import FailedPrecondition
from phantom_cri.lifecycle import states
from phantom_cri.lifecycle.live import Container
from phantom_cri.lifecycle.node import Node
from phantom_cri.lifecycle.prepare import open_log
from phantom_cri.lifecycle.undo import Undo
from phantom_cri.model import Resources


async def update_container_resources(node: Node, container_id: str, change: Resources) -> None:
    """Apply the fields of `change` that are set; all of them or, when one is refused, none."""
    container = node.records.container(container_id)
    async with container.lock:
        states.next_container_state(container.record.state, "update", container.id)
        merged = merge(container.record.resources, change)
        if container.preparation is not None:
            await asyncio.wait([container.preparation])
        async with Undo("UpdateContainerResources") as undo:
            before = container.record.resources
            undo.push("record", lambda: record_resources(node, container, before))
            record_resources(node, container, merged)
            if container.has_cgroup:
                node.cgroups.update(container.record.cgroup, merged)
            undo.keep()


def record_resources(node: Node, container: Container, resources: Resources) -> None:
    container.record = codec.replace(container.record, resources=resources)
    node.records.save_container(container)


def merge(current: Resources, change: Resources) -> Resources:
    """`current` with every field that `change` sets (not 0, not empty)."""
    fields = {name: getattr(change, name) for name in change.__struct_fields__}
    changed = {name: value for name, value in fields.items() if value}
    if change.unified:
        changed["unified"] = {**current.unified, **change.unified}
    return codec.replace(current, **changed)


async def reopen_container_log(node: Node, container_id: str) -> None:
    """Switch the log to a file freshly opened at the same path; it exists on return."""
    container = node.records.container(container_id)
    pod = node.records.pod_of(container)
    async with container.lock:
        states.next_container_state(container.record.state, "reopen log", container.id)
        if not container.record.log_path or pod.shell is None:
            raise FailedPrecondition(f"cannot reopen log of container {container.id}: it has none")
        fd = open_log(container.record.log_path)
        try:
            await pod.shell.fragment.reopen_log(container.id, fd)
        finally:
            os.close(fd)

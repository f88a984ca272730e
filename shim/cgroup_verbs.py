"""The verbs of containerd's task service that are about a task's cgroup."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from phantom_cri import codec
from phantom_cri.api.containerd import events_pb2 as pb
from phantom_cri.errors import FailedPrecondition, InvalidArgument
from phantom_cri.usage import CgroupUsage
from shim import document
from shim.node import Node
from shim.oci_resources import merged, resources_of
from shim.tasks import Tasks

FREEZE_TIMEOUT_S = 10.0


class CgroupVerbs:
    """Raise PhantomErrors; NotFound for what is unknown."""

    def __init__(self, node: Node, tasks: Tasks) -> None:
        self._node, self._tasks = node, tasks

    def pids(self, namespace: str, task_id: str) -> Sequence[int]:
        return sorted(self._node.cgroups.pids(self._tasks.find(namespace, task_id).record.cgroup))

    async def pause(self, namespace: str, task_id: str, *, resume: bool) -> None:
        task = self._tasks.find(namespace, task_id)
        async with task.lock:
            if task.record.init.state != "running":
                raise FailedPrecondition(f"task {task_id}: it is {task.record.init.state}, not running")
            freezer, cgroup = self._node.cgroups.freezer, task.record.cgroup
            if resume:
                freezer.thaw(cgroup)
            else:
                await asyncio.to_thread(freezer.freeze, cgroup, FREEZE_TIMEOUT_S)
            task.save(codec.replace(task.record, paused=not resume))
        event = pb.TaskResumed if resume else pb.TaskPaused
        self._tasks.runs.tell(task.pod, event(container_id=task_id))

    async def update(self, namespace: str, task_id: str, text: bytes) -> None:
        task = self._tasks.find(namespace, task_id)
        wanted = document.read(text, document.Resources, "resources")
        if wanted.devices and wanted.devices != task.record.devices:  # CRI repeats those of the spec
            raise InvalidArgument("resources.devices: cannot be changed")
        async with task.lock:
            changed = merged(task.record.resources, resources_of(wanted))
            await self._node.cgroups.update_async(task.record.cgroup, changed)
            task.save(codec.replace(task.record, resources=changed))

    async def usage(self, namespace: str, task_id: str) -> CgroupUsage:
        task = self._tasks.find(namespace, task_id)
        return await asyncio.to_thread(self._node.cgroups.usage, task.record.cgroup, detailed=True)

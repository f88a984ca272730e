"""What a new daemon finds: pods of an earlier one that go on, half-made things to undo, warm leftovers.

Runs before the first request is served. Every fragment is found by its socket in the state
directory and asked what it holds; what it answers wins over our records.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from dataclasses import dataclass

from phantom_cri import codec
from phantom_cri.cgroups import pod_path
from phantom_cri.launch import Exit, Fragment, LaunchError, connect
from phantom_cri.lifecycle import endings
from phantom_cri.lifecycle.live import Container, Pod, Shell
from phantom_cri.lifecycle.node import Node, log
from phantom_cri.lifecycle.records import stored_containers, stored_pod
from phantom_cri.lifecycle.shells import end_fragment
from phantom_cri.model import ContainerRecord, SandboxRecord

STARTING_TIMEOUT = 5.0
"""Seconds that a start begun by the earlier daemon gets to succeed or fail."""


@dataclass(slots=True)
class Found:
    """One folder below STATE/pods as it was found."""

    folder: str
    record: SandboxRecord | None
    finished: bool
    fragment: Fragment | None

    @property
    def sandbox_id(self) -> str:
        return os.path.basename(self.folder)


async def recover(node: Node) -> None:
    """Take over what lives, undo what is half made; afterwards records and kernel agree."""
    os.makedirs(node.records.folder, mode=0o711, exist_ok=True)
    folders = [entry.path for entry in os.scandir(node.records.folder) if entry.is_dir(follow_symlinks=False)]
    found = await asyncio.gather(*(look(folder) for folder in folders))
    pods = [item for item in found if item.record is not None and item.finished]
    await asyncio.gather(*(undo(node, item) for item in found if item not in pods))
    await asyncio.gather(*(take_over(node, item) for item in pods))
    in_use = {container.id: container.record.layers for container in node.records.containers.values()}
    await node.images.start(in_use)
    await node.network.start(
        {pod.id: pod.record.ips for pod in node.records.pods.values() if pod.record.state == "ready"}
    )


async def look(folder: str) -> Found:
    try:
        stored = stored_pod(folder)
    except codec.DecodeError:
        stored = None  # the crash came while its first record was being written: nothing was acquired
    record, finished = stored or (None, False)
    try:
        fragment = await connect(folder, record.fragment if record else None)
    except (OSError, LaunchError):
        fragment = None
    return Found(folder, record, finished, fragment)


async def undo(node: Node, item: Found) -> None:
    """A pod that was being made, or a warm fragment: ended, and all it had is given back."""
    if item.fragment is not None:
        await end_fragment(item.fragment)
    if item.record is not None:
        await node.cgroups.remove(pod_path(item.record.cgroup_parent, item.sandbox_id))
    shutil.rmtree(item.folder, ignore_errors=True)


async def take_over(node: Node, item: Found) -> None:
    assert item.record is not None  # noqa: S101 - by the caller's choice
    record, fragment = item.record, item.fragment
    shell = None
    if fragment is not None:
        shell = Shell(id=record.id, folder=item.folder, fragment=fragment, pool=record.pool, ips=record.ips)
    pod = Pod(record=record, shell=shell, released=shell is None and record.state == "notready")
    node.records.pods[pod.id] = pod
    node.records.reserve(record.config.metadata, pod.id)
    node.records.mark_before(pod.id)
    pool = node.pool_of(pod)
    if pool is not None and shell is not None:
        pool.claimed += 1
    for container_record, finished in stored_containers(item.folder):
        await take_over_container(node, pod, container_record, finished)
    if fragment is None and not pod.released:
        endings.pod_died(node, pod)
    endings.watch_pod(node, pod)
    log.info("pod sandbox %s goes on", pod.id, extra={"sandbox_id": pod.id})


async def take_over_container(node: Node, pod: Pod, record: ContainerRecord, finished: bool) -> None:
    container = Container(record, has_cgroup=record.state != "exited")
    if not finished:
        node.images.drop_snapshot(record.id)
        node.records.forget_container(container)
        return
    pod.containers[record.id] = container
    node.records.containers[record.id] = container
    node.records.mark_before(record.id)
    if record.state == "exited":
        container.exited.set()
    elif pod.shell is not None:
        await ask_fragment(node, pod, container)
    elif record.state == "running" or os.path.exists(os.path.join(node.records.pod_folder(pod.id), "exits", record.id)):
        exit = endings.last_exit(pod, record.id, node.records.pod_folder(pod.id))
        container.record = codec.replace(record, state="running")
        endings.container_exited(node, record.id, exit)


async def ask_fragment(node: Node, pod: Pod, container: Container) -> None:
    """Bring a container's record to what its fragment says of it."""
    assert pod.shell is not None  # noqa: S101 - by the caller's choice
    entry = await settled(pod.shell.fragment, container.id)
    if entry is None:
        if container.record.state == "running":
            endings.container_exited(node, container.id, Exit(code=endings.UNKNOWN, finished_at=time.time_ns()))
        else:
            await endings.release_cgroup(node, container)  # the crash came before its start reached the fragment
        return
    container.record = codec.replace(
        container.record,
        state="running",
        started_at=entry.exit.started_at or container.record.started_at,
        process=entry.process or container.record.process,
    )
    if entry.running:
        node.records.save_container(container)
    else:
        endings.container_exited(node, container.id, entry.exit)


async def settled(fragment: Fragment, container_id: str):  # type: ignore[no-untyped-def]
    """The fragment's entry once it is no longer starting; a start that hangs is killed."""
    deadline = time.monotonic() + STARTING_TIMEOUT
    while True:
        entry = await fragment.get(container_id)
        if entry is None or not entry.starting:
            return entry
        if time.monotonic() > deadline:
            await fragment.signal(container_id, 9, everything=True)
        await asyncio.sleep(0.01)

"""Recovery of an earlier daemon's pods: running ones are taken over, unfinished and warm ones cleaned up.

Runs before the first request is served. Every fragment is found by its folder in the state directory and
queried for its processes; its answer wins over our records. After a reboot there are no fragments, and pods
are restored from the durable records as not ready (`reboot`).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from phantom_cri import codec, fragments
from phantom_cri.daemon import reboot, unmanaged
from phantom_cri.daemon.orphans import end_orphans
from phantom_cri.daemon.strays import end_strays
from phantom_cri.errors import NotFound
from phantom_cri.fragments.folder import find_fragment, stored_process
from phantom_cri.fragments.handle import FragmentHandle
from phantom_cri.lifecycle import endings
from phantom_cri.lifecycle.checkpoints import thaw_all
from phantom_cri.lifecycle.cleanup import forget_process, release_cgroup
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.records import (
    drop_unfinished,
    stored_container_ids,
    stored_containers,
    stored_pod,
)
from phantom_cri.lifecycle.runtime import Runtime, log
from phantom_cri.model import ContainerRecord, SandboxRecord

STARTING_TIMEOUT = 5.0
"""Seconds after which a start by the earlier daemon that neither succeeded nor failed is killed."""


@dataclass(slots=True)
class Found:
    """One folder below STATE/pods as it was found."""

    folder: str
    record: SandboxRecord | None  # None: warm, or not yet started
    finished: bool
    fragment: FragmentHandle | None
    containers: Sequence[ContainerRecord] = ()  # those whose creation was finished

    @property
    def sandbox_id(self) -> str:
        return os.path.basename(self.folder)

    @property
    def is_live(self) -> bool:
        return self.fragment is not None and self.record is not None and self.record.state == "ready"

    @property
    def ips(self) -> tuple[str, ...]:
        return self.record.ips if self.record is not None else ()


async def recover(runtime: Runtime) -> None:
    """Take over live pods, clean up unfinished ones; afterwards records and kernel agree."""
    os.makedirs(runtime.records.folder, mode=0o711, exist_ok=True)
    brought_back = await asyncio.to_thread(reboot.bring_back, runtime.records, runtime.durable.read)
    folders = [
        entry.path for entry in os.scandir(runtime.records.folder) if entry.is_dir(follow_symlinks=False)
    ]
    found = await asyncio.gather(*(look(folder) for folder in folders))
    kept = [item for item in found if item.record is not None and item.finished]
    # first, since a driver's cleanup needs the pod's network namespace to exist
    await runtime.network.start({item.sandbox_id: item.ips for item in kept if item.is_live})
    ours = {item.fragment.process.pid for item in found if item.fragment is not None}
    await end_strays(runtime, ours | of_another_wire(runtime))
    await asyncio.gather(*(undo(runtime, item) for item in found if item not in kept))
    more_is_known = await asyncio.to_thread(runtime.durable.is_newer)
    in_use = {record.id: held(record) for item in kept for record in item.containers}
    await runtime.images.start(in_use, spare=more_is_known)
    await asyncio.gather(*(take_over(runtime, item) for item in kept))
    await reboot.end_leftovers(runtime, brought_back)
    if not more_is_known:  # else a newer daemon may still restore the records that this one cannot read
        reboot.set_mark(runtime.records)
    runtime.durable.begin(runtime.records.everything)
    thaw_all(runtime)


def of_another_wire(runtime: Runtime) -> set[int]:
    """Fragments whose folders lie beside our pods': they are another's to find again."""
    folders = Path(runtime.config.state).glob("*/*/")
    others = (
        stored_process(str(folder)) for folder in folders if str(folder.parent) != runtime.records.folder
    )
    return {process.pid for process in others if process is not None}


def held(record: ContainerRecord) -> tuple[str, ...]:
    """Layers that a container needs: its own image's, and those of the images it has mounted."""
    return (*record.layers, *(folder for mount in record.image_mounts for folder in mount.layers))


async def look(folder: str) -> Found:
    """Read one folder. A pod whose record cannot be read is cleaned up, so that the daemon can start."""
    item = Found(folder, None, False, await find_fragment(folder))
    try:
        stored = stored_pod(folder)
        if stored is not None:
            item.record, item.finished = stored
            item.containers = list(stored_containers(folder))
    except codec.DecodeError as error:
        log.error("pod sandbox %s will be killed, its record cannot be read: %s", item.sandbox_id, error)
        item.finished = False
    return item


async def undo(runtime: Runtime, item: Found) -> None:
    """Kill and clean up a warm fragment, an unfinished pod or one that cannot be recovered.

    Its network was released by `network.start`, which gets the list of live pods.
    """
    if item.fragment is not None:
        await item.fragment.end()
    if item.record is not None:
        for container_id in stored_container_ids(item.folder):
            cgroup = runtime.cgroups.member(item.record.cgroup_parent, container_id)
            await runtime.cgroups.kill_async(cgroup)
            await runtime.cgroups.remove_async(cgroup)
    shutil.rmtree(item.folder, ignore_errors=True)


async def take_over(runtime: Runtime, item: Found) -> None:
    record, fragment = item.record, item.fragment
    if record is None:
        return
    if fragment is not None:
        fragment.pool, fragment.ips = record.pool, record.ips
    pod = Pod(record=record, fragment=fragment, released=fragment is None and record.state == "notready")
    runtime.records.pods[pod.id] = pod
    runtime.records.reserve(record.config.metadata, pod.id)
    if record.state == "ready":
        runtime.records.mark_before(pod.id)
    if record.selinux is not None:
        runtime.selinux.hold(pod.id, record.selinux)
    pool = runtime.pool_of(pod)
    if pool is not None and fragment is not None:
        pool.claimed += 1
    drop_unfinished(item.folder)  # their snapshots were removed by `images.start`
    # An exited one may still have its cgroup: it is removed on stop or remove.
    pod.containers.update((one.id, Container(one, has_cgroup=True)) for one in item.containers)
    if pod.newer_record:
        log.error("pod sandbox %s can only be stopped and removed: %s", pod.id, pod.newer_record)
    for container in list(pod.containers.values()):
        await take_over_container(runtime, pod, container)
    if fragment is not None and not pod.other_version:
        await end_orphans(runtime, pod, fragment)
    if fragment is None and not pod.released:
        endings.pod_died(runtime, pod)
    endings.watch_pod(runtime, pod)
    state = "ready" if pod.record.state == "ready" else "not ready"
    log.info("pod sandbox %s recovered: %s", pod.id, state, extra={"sandbox_id": pod.id})


async def take_over_container(runtime: Runtime, pod: Pod, container: Container) -> None:
    record = container.record
    runtime.records.containers[record.id] = container
    if pod.record.state == "ready":
        runtime.records.mark_before(record.id)
    if record.state == "exited":
        container.exited.set()
    elif pod.other_version:
        unmanaged.watch(runtime, container)
    elif pod.fragment is not None:
        await ask_fragment(runtime, pod, pod.fragment, container)
    elif record.state == "running" or endings.has_exit(runtime, container):
        container.record = codec.replace(record, state="running")
        endings.container_exited(runtime, record.id, endings.last_exit(runtime, container))


async def ask_fragment(runtime: Runtime, pod: Pod, fragment: FragmentHandle, container: Container) -> None:
    """Update a container's record from what its fragment reports."""
    entry = await settled(fragment, container.id)
    if entry is None:
        if container.record.state == "running":
            endings.container_exited(runtime, container.id, endings.last_exit(runtime, container))
        else:
            await release_cgroup(runtime, container)  # the fragment never received its start
        return
    if entry.state == fragments.State.PREPARED:
        close(entry)
        await forget_process(fragment, container)
        await release_cgroup(runtime, container)
        return
    process = fragments.identify(entry.pidfd) if entry.pidfd >= 0 else None
    close(entry)
    container.record = codec.replace(
        container.record,
        state="running",
        started_at=entry.exit.started_at or container.record.started_at,
        process=process or container.record.process,
    )
    if entry.state == fragments.State.EXITED:
        endings.container_exited(runtime, container.id, entry.exit)
    else:
        runtime.records.save_container(container)


def close(entry: fragments.Entry) -> None:
    for fd in (entry.pidfd, entry.console):
        if fd >= 0:
            os.close(fd)


async def settled(fragment: FragmentHandle, container_id: str) -> fragments.Entry | None:
    """The fragment's entry once it is no longer starting; a start that hangs is killed."""
    deadline = time.monotonic() + STARTING_TIMEOUT
    while True:
        try:
            entry = await fragment.client.get(container_id)
        except NotFound:
            return None
        if entry.state != fragments.State.STARTING:
            return entry
        close(entry)
        if time.monotonic() > deadline:
            await fragment.client.signal(container_id, 9, all_processes=True)
        await asyncio.sleep(0.01)

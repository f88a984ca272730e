"""What a new daemon finds: pods of an earlier one that go on, half-made things to undo, warm leftovers.

Runs before the first request is served. Every fragment is found by its folder in the state
directory and asked what it holds; what it answers wins over our records. After a reboot there is
none, and pods come back from the durable records as what they have become (`reboot`).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass

from phantom_cri import codec, fragments
from phantom_cri.errors import NotFound, PhantomError
from phantom_cri.fragments.handle import Shell
from phantom_cri.lifecycle import endings, reboot, shells, unmanaged
from phantom_cri.lifecycle.checkpoint_container import thaw_all
from phantom_cri.lifecycle.cleanup import forget_process, release_cgroup
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.node import Node, log
from phantom_cri.lifecycle.orphans import end_orphans
from phantom_cri.lifecycle.records import (
    drop_unfinished,
    stored_container_ids,
    stored_containers,
    stored_pod,
)
from phantom_cri.lifecycle.strays import end_strays
from phantom_cri.model import ContainerRecord, SandboxRecord

STARTING_TIMEOUT = 5.0
"""Seconds that a start begun by the earlier daemon gets to succeed or fail."""


@dataclass(slots=True)
class Found:
    """One folder below STATE/pods as it was found."""

    folder: str
    record: SandboxRecord | None  # None: warm, or not even born
    finished: bool
    shell: Shell | None
    containers: Sequence[ContainerRecord] = ()  # those whose making was finished

    @property
    def sandbox_id(self) -> str:
        return os.path.basename(self.folder)

    @property
    def is_live(self) -> bool:
        return self.shell is not None and self.record is not None and self.record.state == "ready"

    @property
    def ips(self) -> tuple[str, ...]:
        return self.record.ips if self.record is not None else ()


async def recover(node: Node) -> None:
    """Take over what lives, undo what is half made; afterwards records and kernel agree."""
    os.makedirs(node.records.folder, mode=0o711, exist_ok=True)
    brought_back = await asyncio.to_thread(reboot.bring_back, node.records, node.durable.read)
    folders = [entry.path for entry in os.scandir(node.records.folder) if entry.is_dir(follow_symlinks=False)]
    found = await asyncio.gather(*(look(folder) for folder in folders))
    goes_on = [item for item in found if item.record is not None and item.finished]
    # before anything ends: what a driver undoes in a namespace needs it to be there
    await node.network.start({item.sandbox_id: item.ips for item in goes_on if item.is_live})
    await end_strays(node, {item.shell.process.pid for item in found if item.shell is not None})
    await asyncio.gather(*(undo(node, item) for item in found if item not in goes_on))
    more_is_known = await asyncio.to_thread(node.durable.is_newer)
    in_use = {record.id: held(record) for item in goes_on for record in item.containers}
    await node.images.start(in_use, spare=more_is_known)
    await asyncio.gather(*(take_over(node, item) for item in goes_on))
    await reboot.end_leftovers(node, brought_back)
    if not more_is_known:  # else a daemon that can read it may still bring it back
        reboot.set_mark(node.records)
    node.durable.begin(node.records.everything)
    thaw_all(node)


def held(record: ContainerRecord) -> tuple[str, ...]:
    """Layers that a container needs: its own image's, and those of the images it has mounted."""
    return (*record.layers, *(folder for mount in record.image_mounts for folder in mount.layers))


async def look(folder: str) -> Found:
    """A pod with a record that cannot be read does not go on: rather one pod less than no daemon."""
    item = Found(folder, None, False, await find_shell(folder))
    try:
        stored = stored_pod(folder)
        if stored is not None:
            item.record, item.finished = stored
            item.containers = list(stored_containers(folder))
    except codec.DecodeError as error:
        log.error("pod sandbox %s is given up, its record cannot be read: %s", item.sandbox_id, error)
        item.finished = False
    return item


async def find_shell(folder: str) -> Shell | None:
    """The folder's fragment, connected; one that lives but does not answer is ended."""
    process = shells.stored_process(folder)
    if process is None:
        await shells.end_stranger(folder)
        return None
    try:
        shell = Shell(os.path.basename(folder), folder, process, fragments.open_process(process))
    except NotFound:
        return None
    try:
        await shell.connect()
    except fragments.OtherVersion as error:
        log.error("pod sandbox %s runs on but can only be stopped and removed: %s", shell.id, error)
    except PhantomError as error:
        log.warning("the fragment of %s does not answer and is ended: %s", shell.id, error)
        await shell.end()
        return None
    return shell


async def undo(node: Node, item: Found) -> None:
    """A warm fragment, or a pod that was being made or is given up: ended, and all it had goes with it.

    Its network was given back by `network.start`, which was told who is left.
    """
    if item.shell is not None:
        await item.shell.end()
    if item.record is not None:
        for container_id in stored_container_ids(item.folder):
            cgroup = node.cgroups.member(item.record.cgroup_parent, container_id)
            await node.cgroups.kill_async(cgroup)
            await node.cgroups.remove_async(cgroup)
    shutil.rmtree(item.folder, ignore_errors=True)


async def take_over(node: Node, item: Found) -> None:
    record, shell = item.record, item.shell
    if record is None:
        return
    if shell is not None:
        shell.pool, shell.ips = record.pool, record.ips
    pod = Pod(record=record, shell=shell, released=shell is None and record.state == "notready")
    node.records.pods[pod.id] = pod
    node.records.reserve(record.config.metadata, pod.id)
    if record.state == "ready":
        node.records.mark_before(pod.id)
    if record.selinux is not None:
        node.selinux.hold(pod.id, record.selinux)
    pool = node.pool_of(pod)
    if pool is not None and shell is not None:
        pool.claimed += 1
    drop_unfinished(item.folder)  # their snapshots went when the images were started
    # An exited one may still have its cgroup: that goes when it is stopped or removed.
    pod.containers.update((one.id, Container(one, has_cgroup=True)) for one in item.containers)
    if pod.newer_record:
        log.error("pod sandbox %s can only be stopped and removed: %s", pod.id, pod.newer_record)
    for container in list(pod.containers.values()):
        await take_over_container(node, pod, container)
    if shell is not None and not pod.other_version:
        await end_orphans(node, pod, shell)
    if shell is None and not pod.released:
        endings.pod_died(node, pod)
    endings.watch_pod(node, pod)
    state = "goes on" if pod.record.state == "ready" else "is known, and is not ready"
    log.info("pod sandbox %s %s", pod.id, state, extra={"sandbox_id": pod.id})


async def take_over_container(node: Node, pod: Pod, container: Container) -> None:
    record = container.record
    node.records.containers[record.id] = container
    if pod.record.state == "ready":
        node.records.mark_before(record.id)
    if record.state == "exited":
        container.exited.set()
    elif pod.other_version:
        unmanaged.watch(node, container)
    elif pod.shell is not None:
        await ask_fragment(node, pod, pod.shell, container)
    elif record.state == "running" or endings.has_exit(node, container):
        container.record = codec.replace(record, state="running")
        endings.container_exited(node, record.id, endings.last_exit(node, container))


async def ask_fragment(node: Node, pod: Pod, shell: Shell, container: Container) -> None:
    """Bring a container's record to what its fragment says of it."""
    entry = await settled(shell, container.id)
    if entry is None:
        if container.record.state == "running":
            endings.container_exited(node, container.id, endings.last_exit(node, container))
        else:
            await release_cgroup(node, container)  # its start never reached the fragment
        return
    if entry.state == fragments.State.PREPARED:
        close(entry)
        await forget_process(shell, container)
        await release_cgroup(node, container)
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
        endings.container_exited(node, container.id, entry.exit)
    else:
        node.records.save_container(container)


def close(entry: fragments.Entry) -> None:
    for fd in (entry.pidfd, entry.console):
        if fd >= 0:
            os.close(fd)


async def settled(shell: Shell, container_id: str) -> fragments.Entry | None:
    """The fragment's entry once it is no longer starting; a start that hangs is killed."""
    deadline = time.monotonic() + STARTING_TIMEOUT
    while True:
        try:
            entry = await shell.fragment.get(container_id)
        except NotFound:
            return None
        if entry.state != fragments.State.STARTING:
            return entry
        close(entry)
        if time.monotonic() > deadline:
            await shell.fragment.signal(container_id, 9, everything=True)
        await asyncio.sleep(0.01)

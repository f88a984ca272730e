"""CheckpointContainer: the container is frozen while its memory and files are copied, then resumed."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from phantom_cri import requests
from phantom_cri.checkpoint import write_archive
from phantom_cri.concurrency import settled, to_the_end
from phantom_cri.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, Unimplemented
from phantom_cri.lifecycle.checkpoints import workplace
from phantom_cri.lifecycle.cleanup import remove_later, try_remove
from phantom_cri.lifecycle.container_spec import process_of
from phantom_cri.lifecycle.live import UnderWay
from phantom_cri.lifecycle.running import Running, running
from phantom_cri.lifecycle.runtime import Runtime, log
from phantom_cri.model import ContainerRecord, ProcessRef
from phantom_cri.requests import oci
from phantom_cri.undo import Undo

DEFAULT_TIMEOUT_S = 120
"""The default: the kubelet's timeout of a call."""

FREEZE_TIMEOUT_S = 10.0


async def checkpoint_container(runtime: Runtime, container_id: str, location: str, timeout_s: int) -> None:
    """Write the archive `location`; `timeout_s` 0: the default. The container always keeps running.

    Raises Unimplemented if CRIU does not work, InvalidArgument, NotFound, FailedPrecondition,
    DeadlineExceeded. A stop of the container aborts it.
    """
    check_location(location)
    target = running(runtime, container_id, "checkpoint")
    if target.pod.record.config.security.namespaces.user == "pod":
        raise Unimplemented(f"container {target.container.id}: checkpoints of pods with a user namespace")
    await runtime.criu.require()
    if target.container.checkpoint is not None:
        raise FailedPrecondition(f"container {target.container.id}: a checkpoint is already in progress")
    container = target.container
    work = asyncio.create_task(_checkpoint(runtime, target, location, timeout_s or DEFAULT_TIMEOUT_S))
    under_way = container.checkpoint = UnderWay(work)
    try:
        await asyncio.wait([work])
    finally:
        work.cancel()
        try:
            await to_the_end(asyncio.wait([work]))
        finally:  # also if cancelled again
            container.checkpoint = None
    if under_way.abandoned:
        raise FailedPrecondition(f"container {container.id}: stopped during the checkpoint")
    work.result()
    log.info("container %s: checkpoint written to %s", container.id, location)


def check_location(location: str) -> None:
    if not location.startswith("/") or "\0" in location or location.endswith("/"):
        raise InvalidArgument(f"location: must be the absolute path of a file, got {location!r}")
    if os.path.isdir(location) or not os.path.isdir(os.path.dirname(location)):
        raise InvalidArgument(f"location: must be a file in a folder that exists, got {location!r}")


async def _checkpoint(runtime: Runtime, target: Running, location: str, timeout_s: int) -> None:
    record = target.container.record
    folder = workplace(runtime) / record.id
    freezer = runtime.cgroups.freezer
    try:
        async with asyncio.timeout(timeout_s), Undo("CheckpointContainer") as undo:
            undo.push("files", lambda: _remove(folder))
            (folder / "checkpoint").mkdir(mode=0o700, parents=True)
            undo.push("frozen processes", lambda: freezer.thaw(record.cgroup))
            await asyncio.to_thread(freezer.freeze, record.cgroup, FREEZE_TIMEOUT_S)
            pid = process_ref(record).pid
            await runtime.criu.dump(
                pid,
                folder / "checkpoint",
                shared_namespaces(record),
                requests.parts_mounted(pid),
                freezer.folder(record.cgroup),
                lambda: target.container.checkpoint is not None and target.container.checkpoint.abandoned,
            )
            await _write_changes(runtime, record, folder)
            freezer.thaw(record.cgroup)
            documents = {"config.dump": config_of(record), "spec.dump": spec_of(target)}
            await asyncio.to_thread(write_archive, location, folder, documents, record.log_path)
    except TimeoutError:
        raise DeadlineExceeded(f"checkpoint of {record.id}: not done after {timeout_s} s") from None


async def _write_changes(runtime: Runtime, record: ContainerRecord, folder: Path) -> None:
    """Runs on a thread, which is stopped and waited for when the caller is cancelled."""
    stop = Event()
    target = str(folder / "rootfs-diff.tar")
    work = asyncio.ensure_future(
        asyncio.to_thread(runtime.images.write_changes, record.id, record.layers, target, stop)
    )
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        await settled(work)
        raise


def shared_namespaces(record: ContainerRecord) -> list[str]:
    """Namespaces shared with the pod or the node, of the kinds that CRIU can skip."""
    return ["net"] if record.config.security.namespaces.pid == "container" else ["net", "pid"]


def process_ref(record: ContainerRecord) -> ProcessRef:
    if record.process is None:
        raise FailedPrecondition(f"container {record.id}: its first process is not known")
    return record.process


def config_of(record: ContainerRecord) -> dict[str, object]:
    """`config.dump`, as checkpointctl expects it."""
    return {
        "id": record.id,
        "name": record.config.metadata.name,
        "rootfsImage": record.image_id,
        "rootfsImageRef": record.image_ref,
        "rootfsImageName": record.image_name,
        "runtime": "phantom",
        "createdTime": _time(record.created_at),
        "checkpointedTime": _time(time.time_ns()),
    }


def spec_of(target: Running) -> dict[str, object]:
    """`spec.dump`: the container as an OCI runtime spec."""
    record, pod = target.container.record, target.pod.record
    process = process_of(target.pod, target.container)
    metadata = pod.config.metadata
    return {
        "ociVersion": oci.VERSION,
        "process": {"terminal": record.config.tty, **oci.process_document(record, process)},
        "root": {"path": "rootfs", "readonly": record.config.security.readonly_rootfs},
        "hostname": pod.hostname,
        "mounts": [
            {"destination": mount.container_path, "source": mount.host_path, "type": "bind"}
            for mount in record.config.mounts
        ],
        "annotations": {
            **record.config.annotations,
            "io.container.manager": "phantom",
            "io.kubernetes.cri.container-name": record.config.metadata.name,
            "io.kubernetes.cri.image-name": record.image_name,
            "io.kubernetes.cri.sandbox-id": pod.id,
            "io.kubernetes.cri.sandbox-name": metadata.name,
            "io.kubernetes.cri.sandbox-namespace": metadata.namespace,
            "io.kubernetes.cri.sandbox-uid": metadata.uid,
        },
        "linux": {"cgroupsPath": record.cgroup},
    }


async def _remove(folder: Path) -> None:
    if not await asyncio.to_thread(try_remove, str(folder)):
        remove_later(str(folder))


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat().replace("+00:00", "Z")


class CheckpointVerbs:
    """`phantom_cri.cri.checkpoint_service.CheckpointVerbs`."""

    _runtime: Runtime

    async def checkpoint_container(self, container_id: str, location: str, timeout_s: int) -> None:
        await checkpoint_container(self._runtime, container_id, location, timeout_s)

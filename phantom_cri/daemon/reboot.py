"""Recovery after a reboot: records are restored from ROOT; no process of theirs runs any more.

STATE/pods/boot_id holds the id of the boot that wrote the folder (random(4)). If it is this boot's, the
folder is authoritative. If it is another boot's, all pids and sockets in the folder are meaningless, and it
is emptied. If it is missing (a fresh tmpfs, or a cleared folder), pods that only the durable records have
are restored as ended.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable

from phantom_cri import codec, native
from phantom_cri.errors import PhantomError, kernel_error
from phantom_cri.lifecycle.records import RECORD, AnyRecord, Records
from phantom_cri.lifecycle.runtime import Runtime, log
from phantom_cri.model import ContainerRecord, SandboxRecord

UNKNOWN_EXIT = 255
UNKNOWN_REASON = "Unknown"
"""As containerd reports a container whose end was not observed."""

MARK = "boot_id"


def bring_back(records: Records, read: Callable[[], Iterable[AnyRecord]]) -> list[SandboxRecord]:
    """Restore what `read` returns of an earlier boot to STATE, as ended. Blocks. Returns the restored pods.

    Can be repeated after a crash half-way: each pod's own record is written last.
    Raises Internal, ResourceExhausted.
    """
    try:
        mark = _mark(records.folder)
        if mark == native.boot_id():
            return []
        if mark:
            log.warning("%s is of another boot and will be emptied", records.folder)
            _empty(records.folder)
        pods = list(_restore(records, read()))
    except OSError as error:
        raise kernel_error(f"restore records: {error.filename}", error.errno or 0) from error
    if pods:
        log.warning("%d pods of an earlier boot recovered; all their processes have ended", len(pods))
    return pods


def set_mark(records: Records) -> None:
    """Make the folder authoritative for the rest of this boot."""
    try:
        codec.write_atomically(os.path.join(records.folder, MARK), native.boot_id().encode())
    except OSError as error:  # the next daemon reads the durable records too, which hold the same
        log.error("failed to mark %s as this boot's: %s", records.folder, error.strerror)


async def end_leftovers(runtime: Runtime, pods: Iterable[SandboxRecord]) -> None:
    """Kill containers outside of a fragment's pid namespace: they still run if only STATE was cleared."""
    for pod in pods:
        for container in list(runtime.records.pods[pod.id].containers.values()):
            cgroup = container.record.cgroup
            if not cgroup or not runtime.cgroups.exists(cgroup):
                continue
            try:
                await runtime.cgroups.kill_async(cgroup)
            except PhantomError as error:
                log.error("failed to kill container %s, it keeps running unmanaged: %s", container.id, error)


def ended_pod(record: SandboxRecord) -> SandboxRecord:
    return codec.replace(record, state="notready", fragment=None, ips=())


def ended_container(record: ContainerRecord, now: int) -> ContainerRecord:
    """Its record: a running one has exited; a created one stays so, and its pod lets it start no more."""
    if record.state != "running":
        return codec.replace(record, process=None)
    return codec.replace(
        record,
        state="exited",
        exit_code=UNKNOWN_EXIT,
        reason=UNKNOWN_REASON,
        message="exit status unknown: the node went down, or the runtime's state was lost",
        finished_at=max(now, record.started_at, record.created_at),  # the clock may be wrong after a boot
        process=None,
    )


def _restore(records: Records, stored: Iterable[AnyRecord]) -> Iterable[SandboxRecord]:
    now = time.time_ns()
    pods, containers = [], []
    for record in stored:
        if isinstance(record, SandboxRecord):
            pods.append(ended_pod(record))
        else:
            containers.append(ended_container(record, now))
    missing = {pod.id: pod for pod in pods if not os.path.exists(_path(records, pod))}
    for pod in missing.values():
        os.makedirs(os.path.join(records.pod_folder(pod.id), "containers"), mode=0o711, exist_ok=True)
    for container in containers:
        if container.sandbox_id in missing:
            codec.write_atomically(records.container_path(container), codec.to_json(container))
    for pod in missing.values():
        codec.write_atomically(_path(records, pod), codec.to_json(pod))
    return missing.values()


def _path(records: Records, pod: SandboxRecord) -> str:
    return os.path.join(records.pod_folder(pod.id), RECORD)


def _mark(folder: str) -> str:
    try:
        with open(os.path.join(folder, MARK), encoding="ascii", errors="replace") as file:
            return file.read(64).strip() or "none"
    except FileNotFoundError:
        return ""


def _empty(folder: str) -> None:
    """The mark is removed last, so that an interrupted cleanup is repeated."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif name != MARK:
            os.unlink(path)
    os.unlink(os.path.join(folder, MARK))

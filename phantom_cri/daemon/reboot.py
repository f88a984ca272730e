"""What is known after the machine went down: records come back from ROOT, nothing of them runs.

STATE/pods/boot_id says which boot that folder is of (random(4)). Where it is this one, the folder is the
truth. Where it is another's, all pids and sockets in the folder mean nothing, and it is emptied. Where there
is none, as on a fresh tmpfs or when somebody has cleared the folder, what the durable records know beyond it
has ended.
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
"""As containerd reports a container of which nobody saw the end."""

MARK = "boot_id"


def bring_back(records: Records, read: Callable[[], Iterable[AnyRecord]]) -> list[SandboxRecord]:
    """Give STATE what `read` knows of an earlier boot, as what it has become. Blocks. Answers its pods.

    Can be done again after a crash in the middle: each pod's own record is written last.
    Raises Internal, ResourceExhausted.
    """
    try:
        mark = _mark(records.folder)
        if mark == native.boot_id():
            return []
        if mark:
            log.warning("%s is of another boot: it is emptied", records.folder)
            _empty(records.folder)
        pods = list(_restore(records, read()))
    except OSError as error:
        raise kernel_error(f"bring records back: {error.filename}", error.errno or 0) from error
    if pods:
        log.warning("%d pods of an earlier boot are known; what ran in them has ended", len(pods))
    return pods


def set_mark(records: Records) -> None:
    """From now on the folder is the truth for as long as this boot lasts."""
    try:
        codec.write_atomically(os.path.join(records.folder, MARK), native.boot_id().encode())
    except OSError as error:  # the next daemon will ask the durable records too, which know the same
        log.error("%s cannot be marked as this boot's: %s", records.folder, error.strerror)


async def end_leftovers(runtime: Runtime, pods: Iterable[SandboxRecord]) -> None:
    """Where STATE was cleared without a reboot, containers outside of a fragment's pid namespace run on."""
    for pod in pods:
        for container in list(runtime.records.pods[pod.id].containers.values()):
            cgroup = container.record.cgroup
            if not cgroup or not runtime.cgroups.exists(cgroup):
                continue
            try:
                await runtime.cgroups.kill_async(cgroup)
            except PhantomError as error:
                log.error("container %s runs on, unseen: %s", container.id, error)


def ended_pod(record: SandboxRecord) -> SandboxRecord:
    return codec.replace(record, state="notready", fragment=None, ips=())


def ended_container(record: ContainerRecord, now: int) -> ContainerRecord:
    """One that ran has ended. One that was created stays so: it cannot start in a pod that is not ready."""
    if record.state != "running":
        return codec.replace(record, process=None)
    return codec.replace(
        record,
        state="exited",
        exit_code=UNKNOWN_EXIT,
        reason=UNKNOWN_REASON,
        message="how it ended is not known: the node went down, or its runtime's state was lost",
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
    """The mark goes last, so that an emptying that is cut short is begun again."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif name != MARK:
            os.unlink(path)
    os.unlink(os.path.join(folder, MARK))

"""The records of pods and containers: in memory, and on disk for the next daemon.

    STATE/pods/ID/pod.json                     a pod that is, or was, ready
    STATE/pods/ID/pod.json.new                 a pod being created: cleaned up by the next daemon
    STATE/pods/ID/containers/ID.json[.new]     the same for its containers
    STATE/policies/HASH.json                   a policy as compiled when a container was created (policy.kept)

`intend` writes the whole record before anything is acquired, `commit` renames it after everything succeeded.
So a crash at any moment leaves either nothing or a record that says what to clean up. STATE is a tmpfs;
`on_change` is called for each committed and removed record, to keep a copy that survives a reboot.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from phantom_cri import codec
from phantom_cri.errors import AlreadyExists, InvalidArgument, NotFound
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.model import ContainerRecord, SandboxMetadata, SandboxRecord

RECORD = "pod.json"
INTENDED = ".new"

AnyRecord = SandboxRecord | ContainerRecord

_POD_HEAD: codec.Head = {
    **dict.fromkeys(("id", "created_at", "state", "fragment", "ips", "selinux")),
    "config": dict.fromkeys(("metadata", "labels", "annotations")),
}
_CONTAINER_HEAD: codec.Head = {
    **dict.fromkeys(("id", "sandbox_id", "created_at", "started_at", "finished_at", "exit_code", "state")),
    **dict.fromkeys(("reason", "message", "log_path", "image_id", "image_ref", "image_name", "process")),
    **dict.fromkeys(("cgroup", "layers", "image_mounts", "policy")),
    "config": dict.fromkeys(("metadata", "labels", "annotations", "image")),
}
"""The fields that are the same in every schema: identity, state, and resources."""

T = TypeVar("T")


class RecordStatistics(codec.Record, frozen=True):
    """`names`: reserved names of pods; `unclaimed`: created by an earlier daemon and not used since, which
    the same request returns.
    """

    pods: int
    containers: int
    names: int
    unclaimed: int


class Records:
    def __init__(self, state: str, on_change: Callable[[str, AnyRecord | None], None] | None = None) -> None:
        """`on_change`: called with an id and its record, or None if it was removed; must not block."""
        self.folder = os.path.join(state, "pods")
        self.pods: dict[str, Pod] = {}
        self.containers: dict[str, Container] = {}
        self._names: dict[tuple[str, str, str, int], str] = {}
        self._before: set[str] = set()  # created by an earlier daemon and not used since
        self._changed = on_change or (lambda object_id, record: None)

    # --- look-up ----------------------------------------------------------

    def find_pod(self, sandbox_id: str) -> Pod | None:
        """By id or unique prefix; None when unknown. InvalidArgument for an ambiguous prefix."""
        return self.pods.get(sandbox_id) or _by_prefix(self.pods, sandbox_id, "pod sandbox")

    def find_container(self, container_id: str) -> Container | None:
        return self.containers.get(container_id) or _by_prefix(self.containers, container_id, "container")

    def pod(self, sandbox_id: str) -> Pod:
        """As `find_pod`; NotFound when unknown."""
        pod = self.find_pod(sandbox_id)
        if pod is None:
            raise NotFound(f"pod sandbox {sandbox_id!r} not found")
        self._before.discard(pod.id)
        return pod

    def container(self, container_id: str) -> Container:
        container = self.find_container(container_id)
        if container is None:
            raise NotFound(f"container {container_id!r} not found")
        return container

    def pod_of(self, container: Container) -> Pod:
        return self.pods[container.record.sandbox_id]

    def everything(self) -> Iterator[AnyRecord]:
        """The record of every pod and container."""
        for pod in self.pods.values():
            yield pod.record
        for container in self.containers.values():
            yield container.record

    def statistics(self) -> RecordStatistics:
        return RecordStatistics(len(self.pods), len(self.containers), len(self._names), len(self._before))

    # --- names ------------------------------------------------------------

    def reserve(self, metadata: SandboxMetadata, sandbox_id: str) -> None:
        """Take the pod's name for `sandbox_id`; AlreadyExists names the holder."""
        key = _name(metadata)
        holder = self._names.setdefault(key, sandbox_id)
        if holder != sandbox_id:
            raise AlreadyExists(
                f"metadata: name {metadata.name!r}, namespace {metadata.namespace!r}, uid {metadata.uid!r}, "
                f"attempt {metadata.attempt} is taken by pod sandbox {holder}"
            )

    def release(self, metadata: SandboxMetadata, sandbox_id: str) -> None:
        if self._names.get(_name(metadata)) == sandbox_id:
            del self._names[_name(metadata)]

    def holder(self, metadata: SandboxMetadata) -> Pod | None:
        return self.pods.get(self._names.get(_name(metadata), ""))

    # --- requests sent again after a crash --------------------------------

    def mark_before(self, object_id: str) -> None:
        """Created by an earlier daemon; its caller may not have received the answer."""
        self._before.add(object_id)

    def sent_again(self, object_id: str) -> bool:
        """True once for an object that an earlier daemon created and that was not used since.

        A caller whose answer was lost in the crash repeats the request, and gets the same object; any later
        identical request fails with ALREADY_EXISTS.
        """
        if object_id not in self._before:
            return False
        self._before.remove(object_id)
        return True

    # --- pods -------------------------------------------------------------

    def pod_folder(self, sandbox_id: str) -> str:
        return os.path.join(self.folder, sandbox_id)

    def intend_pod(self, record: SandboxRecord) -> None:
        _write_new(os.path.join(self.pod_folder(record.id), RECORD), record)

    def commit_pod(self, pod: Pod) -> None:
        path = os.path.join(self.pod_folder(pod.id), RECORD)
        os.rename(path + INTENDED, path)
        self.pods[pod.id] = pod
        self._changed(pod.id, pod.record)

    def save_pod(self, pod: Pod) -> None:
        self._changed(pod.id, pod.record)
        codec.write_atomically(os.path.join(self.pod_folder(pod.id), RECORD), codec.to_json(pod.record))

    def forget_pod(self, pod: Pod) -> None:
        """Remove it from memory; the caller removes the folder."""
        self.pods.pop(pod.id, None)
        self._changed(pod.id, None)
        self._before.discard(pod.id)
        self.release(pod.record.config.metadata, pod.id)

    # --- containers -------------------------------------------------------

    def container_path(self, record: ContainerRecord) -> str:
        return os.path.join(self.pod_folder(record.sandbox_id), "containers", f"{record.id}.json")

    def intend_container(self, record: ContainerRecord) -> None:
        _write_new(self.container_path(record), record)

    def commit_container(self, pod: Pod, container: Container) -> None:
        path = self.container_path(container.record)
        os.rename(path + INTENDED, path)
        pod.containers[container.id] = container
        self.containers[container.id] = container
        self._changed(container.id, container.record)

    def save_container(self, container: Container) -> None:
        self._changed(container.id, container.record)
        codec.write_atomically(self.container_path(container.record), codec.to_json(container.record))

    def forget_container(self, container: Container) -> None:
        """Remove it from memory and disk; idempotent."""
        path = self.container_path(container.record)
        for leftover in (path, path + INTENDED):
            if os.path.lexists(leftover):
                os.unlink(leftover)
        if self.containers.pop(container.id, None) is not None:
            self._changed(container.id, None)
        self._before.discard(container.id)
        pod = self.pods.get(container.record.sandbox_id)
        if pod is not None:
            pod.containers.pop(container.id, None)


def read_pod(text: bytes) -> SandboxRecord:
    """Decode a record; of a newer schema only the head. Raises DecodeError."""
    try:
        return codec.from_stored(text, SandboxRecord)
    except codec.NewerSchema:
        return codec.from_head(text, SandboxRecord, _POD_HEAD)


def read_container(text: bytes) -> ContainerRecord:
    """As `read_pod`."""
    try:
        return codec.from_stored(text, ContainerRecord)
    except codec.NewerSchema:
        return codec.from_head(text, ContainerRecord, _CONTAINER_HEAD)


def stored_container_ids(pod_folder: str) -> set[str]:
    folder = os.path.join(pod_folder, "containers")
    names = os.listdir(folder) if os.path.isdir(folder) else ()
    return {name.partition(".")[0] for name in names}


def stored_containers(pod_folder: str) -> Iterator[ContainerRecord]:
    """The record of every committed container below a pod's folder. Raises DecodeError."""
    folder = os.path.join(pod_folder, "containers")
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if name.endswith(".json"):
            with open(os.path.join(folder, name), "rb") as file:
                yield read_container(file.read())


def drop_unfinished(pod_folder: str) -> None:
    """Remove records of unfinished containers, and partly written files, that a crash left."""
    folder = os.path.join(pod_folder, "containers")
    for name in os.listdir(folder) if os.path.isdir(folder) else ():  # missing if its pod was being removed
        if not name.endswith(".json"):
            os.unlink(os.path.join(folder, name))


def stored_pod(pod_folder: str) -> tuple[SandboxRecord, bool] | None:
    """A pod's record and whether it was committed; None for an unclaimed fragment."""
    for name, finished in ((RECORD, True), (RECORD + INTENDED, False)):
        path = os.path.join(pod_folder, name)
        if os.path.exists(path):
            with open(path, "rb") as file:
                return read_pod(file.read()), finished
    return None


def _name(metadata: SandboxMetadata) -> tuple[str, str, str, int]:
    return (metadata.name, metadata.namespace, metadata.uid, metadata.attempt)


def _by_prefix(known: Mapping[str, T], prefix: str, kind: str) -> T | None:
    if not prefix:
        return None
    found = [key for key in known if key.startswith(prefix)]
    if len(found) > 1:
        raise InvalidArgument(f"{kind} id {prefix!r} is ambiguous: {len(found)} ids begin with it")
    return known[found[0]] if found else None


def _write_new(path: str, record: SandboxRecord | ContainerRecord) -> None:
    fd = os.open(path + INTENDED, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        codec.write_all(fd, codec.to_json(record))
    finally:
        os.close(fd)

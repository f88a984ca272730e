"""The writable part of a container's root: `containers/<container_id>/{upper,work}`.

Only folders are created here; the overlay is mounted at the container's start. Creating and dropping cost the
caller one rename each, since every container start and stop waits for them: folders are created in advance by
a thread (ext4 can take 0.3 ms for each when its block groups fill up), and deleted by the trash's thread. A
used folder is never reused: another process may still have a descriptor of the old overlay and write to it.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections import deque
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from phantom_cri.codec import Record
from phantom_cri.errors import AlreadyExists, ResourceExhausted, kernel_error
from phantom_cri.images.trash import Trash

_SPARES = 32
_SPARE = ".spare-"  # container ids do not begin with a dot

MOUNT_POINTS = ("proc/", "sys/", "dev/", "etc/resolv.conf", "etc/hosts", "etc/hostname")
"""Mount points of every container; with a slash at the end a folder."""


class Snapshot(Record, frozen=True):
    """The folders of the overlay, as absolute paths; `lower`: top first.

    `folder` contains `upper` and `work` and other data to be deleted with the container.
    """

    folder: str
    upper: str
    work: str
    lower: tuple[str, ...]


class SnapshotStore:
    """The lowest layer of every container is a skeleton with the usual mount points.

    Without it the start would create those that the image lacks in the upper layer: a copy-up of /etc and
    three new files on disk, for each container. `empty` is an empty folder.
    """

    def __init__(self, root: Path, trash: Trash) -> None:
        self._prefix = f"{root}/containers/"
        self._skeleton = f"{root}/skeleton"
        self.empty = f"{root}/empty"
        self._trash = trash
        self._spares: deque[str] = deque()
        self._numbers = itertools.count()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        self._making: Future[None] | None = None

    def open(self, in_use: Collection[str] | None) -> None:
        """Delete folders of unknown containers; None: keep all, as not all containers are known."""
        os.makedirs(self._prefix, 0o700, exist_ok=True)
        for container_id in os.listdir(self._prefix):
            if container_id.startswith(_SPARE) or (in_use is not None and container_id not in in_use):
                self._trash.discard(self._prefix + container_id)
        self._make_skeleton()
        self._make_spares()

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        while self._spares:
            self._trash.discard(self._spares.pop())

    def create(self, container_id: str, layers: tuple[str, ...]) -> Snapshot:
        """Raises AlreadyExists if the container has one, ResourceExhausted on a full disk."""
        folder = self._prefix + container_id
        if os.path.lexists(folder):
            raise AlreadyExists(f"snapshot of container {container_id}")
        try:
            os.rename(self._spares.popleft() if self._spares else self._make(), folder)
            if layers:
                _match(f"{folder}/upper", os.stat(layers[0]))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ResourceExhausted(f"no space for container {container_id}: {error.strerror}") from None
            raise kernel_error(f"snapshot of container {container_id}", error.errno or 0) from error
        if len(self._spares) < _SPARES // 2 and (self._making is None or self._making.done()):
            self._making = self._thread.submit(self._make_spares)
        return self.locate(container_id, layers)

    def locate(self, container_id: str, layers: tuple[str, ...]) -> Snapshot:
        """The result of `create`, also in a later daemon."""
        folder = self._prefix + container_id
        return Snapshot(folder, f"{folder}/upper", f"{folder}/work", (*layers, self._skeleton))

    def remove(self, container_id: str) -> None:
        """One rename; does nothing if it does not exist."""
        self._trash.discard(self._prefix + container_id)

    def _make_skeleton(self) -> None:
        os.makedirs(self.empty, 0o755, exist_ok=True)
        for name in MOUNT_POINTS:
            path = f"{self._skeleton}/{name}"
            os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
            if not name.endswith("/"):
                os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o644))

    def _make_spares(self) -> None:
        while len(self._spares) < _SPARES:
            self._spares.append(self._make())

    def _make(self) -> str:
        folder = f"{self._prefix}{_SPARE}{next(self._numbers)}"
        os.mkdir(folder, 0o700)
        os.mkdir(f"{folder}/upper", 0o755)
        os.mkdir(f"{folder}/work", 0o700)
        os.chmod(f"{folder}/upper", 0o755)  # noqa: S103  a root folder is 0755, whatever the umask
        return folder


def _match(upper: str, below: os.stat_result) -> None:
    """Copy the image's owner and mode: a container's `/` has those of its upper folder."""
    if (below.st_uid, below.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(upper, below.st_uid, below.st_gid)
    if stat.S_IMODE(below.st_mode) != 0o755:
        os.chmod(upper, stat.S_IMODE(below.st_mode))

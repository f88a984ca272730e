"""The writable part of a container's root: `containers/<container_id>/{upper,work}`.

Only folders are made here; whoever starts the container mounts the overlay. Creating and
dropping take a few system calls each, since every container start and stop waits for them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path

from phantom_cri.codec import Record
from phantom_cri.errors import AlreadyExists
from phantom_cri.images.trash import Trash


class Snapshot(Record, frozen=True):
    """What overlayfs is mounted from, as absolute paths; `lower` top first.

    `folder` holds the others and whatever else should go with the container.
    """

    folder: str
    upper: str
    work: str
    lower: tuple[str, ...]


class SnapshotStore:
    def __init__(self, root: Path, trash: Trash) -> None:
        self._prefix = f"{root}/containers/"
        self._trash = trash

    def open(self, in_use: Collection[str]) -> None:
        """Throw away what belongs to no container any more."""
        os.makedirs(self._prefix, 0o700, exist_ok=True)
        for container_id in os.listdir(self._prefix):
            if container_id not in in_use:
                self._trash.discard(self._prefix + container_id)

    def create(self, container_id: str, layers: tuple[str, ...]) -> Snapshot:
        """Raises AlreadyExists when the container has one."""
        folder = self._prefix + container_id
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            raise AlreadyExists(f"snapshot of container {container_id}") from None
        upper, work = f"{folder}/upper", f"{folder}/work"
        os.mkdir(upper, 0o755)
        os.mkdir(work, 0o700)
        if layers:
            _match(upper, os.stat(layers[0]))
        return Snapshot(folder, upper, work, layers)

    def locate(self, container_id: str, layers: tuple[str, ...]) -> Snapshot:
        """What `create` answered, also in a later daemon."""
        folder = self._prefix + container_id
        return Snapshot(folder, f"{folder}/upper", f"{folder}/work", layers)

    def remove(self, container_id: str) -> None:
        """One rename; nothing happens when there is none."""
        self._trash.discard(self._prefix + container_id)


def _match(upper: str, below: os.stat_result) -> None:
    """Owner and mode of a container's `/` are those of its upper folder, so take the image's."""
    if (below.st_uid, below.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(upper, below.st_uid, below.st_gid)
    os.chmod(upper, stat.S_IMODE(below.st_mode))  # mkdir's mode was subject to the umask

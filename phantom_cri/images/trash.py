"""Removal that costs the caller one rename: a dedicated thread deletes.

After a crash the rest of the folder is deleted at the next start.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import stat
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

_log = logging.getLogger(__name__)
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Trash:
    """A folder on the same file system as everything that is moved to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._prefix = secrets.token_hex(4)  # an earlier run may have left entries with any number
        self._numbers = itertools.count()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="trash")
        self._emptying: Future[None] | None = None

    def open(self) -> None:
        """Create the folder and start deleting the rest of an earlier run."""
        os.makedirs(self._folder, 0o700, exist_ok=True)
        self._empty_soon()

    def discard(self, path: str) -> bool:
        """Move `path` (file or folder) away at once; False if it does not exist."""
        try:
            os.rename(path, f"{self._folder}/{self._name()}")
        except FileNotFoundError:
            return False
        self._empty_soon()
        return True

    def wait(self) -> None:
        """Block until everything discarded so far is deleted."""
        self._thread.submit(lambda: None).result()

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _name(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"

    def _empty_soon(self) -> None:
        if self._emptying is None or self._emptying.running() or self._emptying.done():
            self._emptying = self._thread.submit(self._empty)

    def _empty(self) -> None:
        """Delete everything. Inner folders are moved up first, so that depth needs no recursion."""
        root = os.open(self._folder, _FLAGS)
        try:
            pending = os.listdir(root)
            while pending:
                name = pending.pop()
                try:
                    pending += self._delete(root, name)
                except OSError as error:
                    _log.warning("failed to delete %s/%s: %s", self._folder, name, error)
        finally:
            os.close(root)

    def _delete(self, root: int, name: str) -> list[str]:
        """Delete one entry; returns the names of its inner folders, which were moved up."""
        try:
            if not stat.S_ISDIR(os.stat(name, dir_fd=root, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=root)
                return []
        except FileNotFoundError:
            return []
        moved: list[str] = []
        fd = os.open(name, _FLAGS, dir_fd=root)
        try:
            with os.scandir(fd) as entries:
                for entry in list(entries):
                    if entry.is_dir(follow_symlinks=False):
                        moved.append(self._name())
                        os.rename(entry.name, moved[-1], src_dir_fd=fd, dst_dir_fd=root)
                    else:
                        os.unlink(entry.name, dir_fd=fd)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=root)
        return moved

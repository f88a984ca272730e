"""Sizes of containers' writable layers: bytes and inodes of upper folders, counted in the background.

A count walks the folder, which can have millions of files, so requests do not wait for a repeated one: they
get the last count with its time, and it is repeated if it is older than `FRESH_S`. One thread counts one
folder after another, with pauses: it uses at most a tenth of one CPU, and nothing without requests.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Event

from phantom_cri.images.tree import Tree
from phantom_cri.model import FilesystemUsage

FRESH_S = 10.0
"""Age in seconds after which a count is repeated."""

_STRIDE = 500
"""Entries counted between two pauses; 2 ms of work on an ordinary disk."""

_WORK_SHARE = 0.1

_MOST_LINKED = 1 << 18
"""Most inodes with several names that are remembered; further ones are counted once for each name."""

_NANOSECONDS = 1_000_000_000


class WrittenLayers:
    """`locate`: returns the upper folder of a container; `mountpoint`: the reported filesystem's folder."""

    def __init__(self, locate: Callable[[str], str], mountpoint: str) -> None:
        self._locate = locate
        self._mountpoint = mountpoint
        self._known: dict[str, FilesystemUsage] = {}
        self._running: dict[str, Future[None]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="written")
        self._closing = Event()

    def usage(self, container_ids: Collection[str], patience_s: float) -> dict[str, FilesystemUsage]:
        """The last counts, after waiting up to `patience_s` for those never counted. Blocks."""
        now = time.time_ns()
        oldest = now - int(FRESH_S * _NANOSECONDS)
        first: list[Future[None]] = []
        for container_id in container_ids:
            known = self._known.get(container_id)
            if known is None:
                first.append(self._begin(container_id))
            elif not oldest <= known.timestamp <= now:  # in the future: the node's clock was set back
                self._begin(container_id)
        if first:
            wait(first, timeout=patience_s)
        return {one: known for one in container_ids if (known := self._known.get(one)) is not None}

    def forget(self, container_id: str) -> None:
        """Idempotent."""
        self._known.pop(container_id, None)

    def close(self) -> None:
        """Stop; a running count ends at its next pause."""
        self._closing.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _begin(self, container_id: str) -> Future[None]:
        running = self._running.get(container_id)
        if running is None:
            running = self._running[container_id] = self._thread.submit(self._count, container_id)
            running.add_done_callback(lambda _: self._running.pop(container_id, None))
        return running

    def _count(self, container_id: str) -> None:
        folder = self._locate(container_id)
        try:
            used_bytes, inodes = self._measure(folder)
        except FileNotFoundError:
            return
        self._known[container_id] = FilesystemUsage(time.time_ns(), self._mountpoint, used_bytes, inodes)
        if not os.path.lexists(folder):  # dropped during the count
            self.forget(container_id)

    def _measure(self, folder: str) -> tuple[int, int]:
        """Allocated bytes and inodes. A hard link counts once."""
        used_bytes = inodes = 0
        linked: set[int] = set()
        began = time.monotonic()
        with Tree(folder) as tree:
            for number, status in enumerate(entries(tree), 1):
                if number % _STRIDE == 0:
                    worked = time.monotonic() - began
                    if self._closing.wait(worked * (1 - _WORK_SHARE) / _WORK_SHARE):
                        raise FileNotFoundError(folder)
                    began = time.monotonic()
                if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                    if status.st_ino in linked:
                        continue
                    if len(linked) < _MOST_LINKED:
                        linked.add(status.st_ino)
                used_bytes += status.st_blocks * 512
                inodes += 1
        return used_bytes, inodes


def entries(tree: Tree) -> Iterator[os.stat_result]:
    """The status of a tree's root and everything below; entries removed meanwhile are skipped.

    A container may write concurrently: symbolic links are never followed (`Tree`).
    """
    root = tree.status("")
    if root is not None:
        yield root
    pending = [""]
    while pending:
        path = pending.pop()
        try:
            folder = tree.folder(path)
            with os.scandir(folder) as listing:
                for entry in listing:
                    with contextlib.suppress(OSError):
                        yield entry.stat(follow_symlinks=False)
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(f"{path}/{entry.name}" if path else entry.name)
        except OSError:
            continue

"""The copy of all records that survives a reboot, written in the background.

A change costs the verb only one entry in a dict. Pending changes are written `FLUSH_AFTER_S` later in one
transaction, on a thread; a pod that was removed before that is never written. If writing fails, pods run
nevertheless, `unavailable_reason` says why, and everything is written when a retry succeeds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from phantom_cri.lifecycle.record_file import RecordFile
from phantom_cri.lifecycle.records import AnyRecord

log = logging.getLogger(__name__)

FLUSH_AFTER_S = 0.1
"""Seconds that changes are collected. A power loss loses these, and those being written."""

RETRY_AFTER_S = 2.0

Changes = dict[str, AnyRecord | None]


class DurableRecords:
    """All methods are called in one event loop's thread; `read` and `is_newer` on any, before `begin`."""

    def __init__(self, file: RecordFile) -> None:
        self.unavailable_reason = ""  # why records would not survive a reboot now
        self._file = file
        self._everything: Callable[[], Iterable[AnyRecord]] | None = None
        self._pending: Changes = {}
        self._on_disk: set[str] = set()  # or being written
        self._is_whole = False  # the file has everything except pending changes
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="records")

    @property
    def pending(self) -> int:
        """Changes that are not being written yet."""
        return len(self._pending)

    def read(self) -> list[AnyRecord]:
        """The records of an earlier daemon. Blocks."""
        return self._file.read()

    def is_newer(self) -> bool:
        """Whether the file was written by a later release and cannot be read here. Blocks."""
        return self._file.is_newer()

    def begin(self, everything: Callable[[], Iterable[AnyRecord]]) -> None:
        """Start writing: first `everything`, and again `everything` after a failure; else only changes."""
        self._everything = everything
        self._write_after(0.0)

    def note(self, object_id: str, record: AnyRecord | None) -> None:
        """Note that a record changed, or with None that it was removed. Makes no system call."""
        if self._everything is None:
            return
        if record is None and object_id not in self._on_disk:
            self._pending.pop(object_id, None)
            return
        self._pending[object_id] = record
        self._write_after(FLUSH_AFTER_S)

    async def close(self) -> None:
        """Write pending changes, if possible, and close the file."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        self._disarm()
        if self._everything is not None and (self._pending or not self._is_whole):
            await asyncio.wait([self._write()])
            self._disarm()
        self._everything = None
        self._thread.submit(self._file.close)
        await asyncio.to_thread(self._thread.shutdown)

    def _write_after(self, seconds: float) -> None:
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._write)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write(self) -> asyncio.Future[None]:
        self._timer = None
        changes, self._pending = self._pending, {}
        if not self._is_whole and self._everything is not None:
            changes = {record.id: record for record in self._everything()}
        self._on_disk.update(object_id for object_id, record in changes.items() if record is not None)
        work = partial(self._file.write, changes, whole=not self._is_whole)
        self._writing = asyncio.get_running_loop().run_in_executor(self._thread, work)
        self._writing.add_done_callback(partial(self._written, changes))
        return self._writing

    def _written(self, changes: Changes, work: asyncio.Future[None]) -> None:
        self._writing = None
        error = work.exception()
        self._is_whole = error is None
        if error is not None:
            if not self.unavailable_reason:
                log.error(
                    "failed to write records of pods to disk, they would not survive a reboot: %s", error
                )
            self.unavailable_reason = str(error)
            self._write_after(RETRY_AFTER_S)
            return
        if self.unavailable_reason:
            log.warning("records of pods are written to disk again")
        self.unavailable_reason = ""
        self._on_disk.difference_update(object_id for object_id, record in changes.items() if record is None)
        if self._pending:
            self._write_after(FLUSH_AFTER_S)

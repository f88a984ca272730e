"""The copy of all records that outlives the machine, written off the pods' way.

A change costs the verb that makes it one entry in a dict. What has gathered `FLUSH_AFTER_S` later goes to the
disk in one transaction, on a thread: a pod that came and went meanwhile never does. While the disk takes
nothing, pods run all the same; `unavailable_reason` says why, and all is written once it does.
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
"""How long changes gather. With the write itself, and one under way, this is what a power loss can take."""

RETRY_AFTER_S = 2.0

Changes = dict[str, AnyRecord | None]


class DurableRecords:
    """All methods are called in one event loop's thread; `read` and `is_newer` on any, before `begin`."""

    def __init__(self, file: RecordFile) -> None:
        self.unavailable_reason = ""  # why records would not outlive the machine now
        self._file = file
        self._everything: Callable[[], Iterable[AnyRecord]] | None = None
        self._pending: Changes = {}
        self._on_disk: set[str] = set()  # or on their way there
        self._is_whole = False  # the file has all but what is pending
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="records")

    @property
    def pending(self) -> int:
        """Changes that are not on their way to the disk yet."""
        return len(self._pending)

    def read(self) -> list[AnyRecord]:
        """What an earlier daemon has left. Blocks."""
        return self._file.read()

    def is_newer(self) -> bool:
        """Whether a later release has left more than can be read here. Blocks."""
        return self._file.is_newer()

    def begin(self, everything: Callable[[], Iterable[AnyRecord]]) -> None:
        """From now on the file follows: first it becomes `everything`, as it is then, and after a failure."""
        self._everything = everything
        self._write_after(0.0)

    def note(self, object_id: str, record: AnyRecord | None) -> None:
        """A record is now this one, or with None gone. Costs no system call."""
        if self._everything is None:
            return
        if record is None and object_id not in self._on_disk:
            self._pending.pop(object_id, None)
            return
        self._pending[object_id] = record
        self._write_after(FLUSH_AFTER_S)

    async def close(self) -> None:
        """Write what is pending, as far as that can be done, and let the file go."""
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
                log.error("records of pods would not outlive a reboot now: %s", error)
            self.unavailable_reason = str(error)
            self._write_after(RETRY_AFTER_S)
            return
        if self.unavailable_reason:
            log.warning("records of pods would outlive a reboot again")
        self.unavailable_reason = ""
        self._on_disk.difference_update(object_id for object_id, record in changes.items() if record is None)
        if self._pending:
            self._write_after(FLUSH_AFTER_S)

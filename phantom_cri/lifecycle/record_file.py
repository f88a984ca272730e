"""The file from which records of pods and containers are restored after a reboot: SQLite, a row for each.

    ROOT/records/records.db      id, kind ("pod" or "container"), record as JSON
    ROOT/records.unreadable/     the last one that could not be read, kept for inspection

Write-ahead log with synchronous=FULL: when `write` returns, the whole transaction is on the disk, at the cost
of one fdatasync(2); one interrupted by a power loss is rolled back (https://www.sqlite.org/wal.html). All
methods block; calls come one at a time, from any thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping

from phantom_cri import codec
from phantom_cri.lifecycle.records import AnyRecord, read_container, read_pod
from phantom_cri.model import SandboxRecord

log = logging.getLogger(__name__)

SCHEMA = 1
"""Of the file itself. Incremented by a change that an older daemon could not read."""

_READ: dict[str, Callable[[bytes], AnyRecord]] = {"pod": read_pod, "container": read_container}
_LOCK_TIMEOUT_S = 5.0
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_SETTINGS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "cache_size = -512",  # KiB
    "wal_autocheckpoint = 256",  # pages; then the log is reused, so it stays at about 1 MiB
)


class RecordFile:
    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.path = os.path.join(folder, "records.db")
        self.unreadable = f"{folder}.unreadable"
        self._db: sqlite3.Connection | None = None

    def read(self) -> list[AnyRecord]:
        """All readable records. If some are damaged, the file is moved away, with an error in the log.

        Nothing of a file that `is_newer`.
        """
        if not os.path.lexists(self.path):
            return []
        records: list[AnyRecord] = []
        problems: list[str] = []
        try:
            db = self._opened()
            problems += [text for (text,) in db.execute("PRAGMA quick_check") if text != "ok"]
            for object_id, kind, body in db.execute("SELECT id, kind, body FROM records"):
                try:
                    records.append(_READ[kind](body.encode()))
                except (codec.DecodeError, KeyError, AttributeError) as error:
                    problems.append(f"{kind} {object_id}: {error}")
        except codec.NewerSchema:
            return []
        except (sqlite3.Error, OSError) as error:
            problems.append(str(error))
        if problems:
            self._set_aside("; ".join(problems[:5]))
        return records

    def is_newer(self) -> bool:
        """Whether the file has the schema of a later release: it is then not changed."""
        try:
            if os.path.lexists(self.path):
                self._opened()
        except codec.NewerSchema as error:
            log.error("%s is ignored and not changed, its pods are not recovered: %s", self.path, error)
            return True
        except (sqlite3.Error, OSError):
            pass  # `read` and `write` report it
        return False

    def write(self, changes: Mapping[str, AnyRecord | None], *, whole: bool) -> None:
        """Store the records, and delete those that are None: all, or on error none. On disk on return.

        `whole`: `changes` are all records; others are deleted from the file. Raises sqlite3.Error, OSError,
        NewerSchema.
        """
        try:
            self._write(changes, whole)
        except BaseException as error:
            self.close()  # rolls back; the next attempt opens or creates the file again
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
                self._set_aside(str(error))
            raise

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _write(self, changes: Mapping[str, AnyRecord | None], whole: bool) -> None:
        db = self._opened()
        rows = [
            (object_id, "pod" if isinstance(record, SandboxRecord) else "container", _text(record))
            for object_id, record in changes.items()
            if record is not None
        ]
        gone = [(object_id,) for object_id, record in changes.items() if record is None]
        with _transaction(db):
            if whole:
                db.execute("DELETE FROM records")
            db.executemany("DELETE FROM records WHERE id = ?", gone)
            db.executemany("INSERT OR REPLACE INTO records (id, kind, body) VALUES (?, ?, ?)", rows)

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            db = sqlite3.connect(
                self.path, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            try:
                _prepare(db)
                for folder in (self._folder, os.path.dirname(self._folder)):
                    codec.sync_folder(folder)
            except BaseException:
                db.close()
                raise
            self._db = db
        return self._db

    def _set_aside(self, why: str) -> None:
        self.close()
        try:
            shutil.rmtree(self.unreadable, ignore_errors=True)
            os.rename(self._folder, self.unreadable)
        except OSError as error:
            log.error(
                "%s cannot be read, and failed to move it away (%s): %s", self.path, error.strerror, why
            )
        else:
            log.error("%s cannot be read and was moved to %s: %s", self.path, self.unreadable, why)


def _prepare(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA locking_mode = EXCLUSIVE")  # one daemon per root: the log's index stays in memory
    (schema,) = db.execute("PRAGMA user_version").fetchone()
    if schema > SCHEMA:
        raise codec.NewerSchema(schema, SCHEMA)
    for setting in _SETTINGS:
        db.execute(f"PRAGMA {setting}")
    if schema == 0:
        with _transaction(db):
            db.execute("CREATE TABLE records (id TEXT PRIMARY KEY, kind TEXT NOT NULL, body TEXT NOT NULL)")
            db.execute(f"PRAGMA user_version = {SCHEMA}")


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Closing the connection rolls back what is not committed."""
    db.execute("BEGIN IMMEDIATE")
    yield
    db.execute("COMMIT")


def _text(record: AnyRecord) -> str:
    return codec.to_json(record).decode()

"""Blobs by digest: `blobs/<algorithm>/<hex>`, and downloads on their way there in `ingest/`.

A blob is visible under its digest only after its bytes were hashed, synced and renamed,
so a crash leaves either the whole blob or a part in `ingest/` that a later pull resumes.
All methods block: call them in a thread, but for `has`, `path` and `ingest`.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from phantom_cri.errors import DataLoss
from phantom_cri.images.reference import is_digest

_READ_SIZE = 1 << 20


class ContentStore:
    """The blobs under one root. Counts its bytes and files as it goes, so asking is free."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, int] = {}
        self._used = 0
        self._lock = threading.Lock()
        self._numbers = itertools.count()

    def open(self) -> None:
        """Make the folders and learn what is there."""
        for name in ("blobs/sha256", "blobs/sha512", "ingest"):
            (self._root / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        for algorithm in ("sha256", "sha512"):
            with os.scandir(self._root / "blobs" / algorithm) as blobs:
                for blob in blobs:
                    self._record(f"{algorithm}:{blob.name}", blob.stat().st_size)

    @property
    def used_bytes(self) -> int:
        return self._used

    @property
    def count(self) -> int:
        return len(self._known)

    def digests(self) -> tuple[str, ...]:
        return tuple(self._known)

    def has(self, digest: str) -> bool:
        return digest in self._known

    def path(self, digest: str) -> Path:
        if not is_digest(digest):
            raise DataLoss(f"digest {digest[:200]!r} is not sha256 or sha512 in lower-case hex")
        return self._root / "blobs" / digest.replace(":", "/")

    def read(self, digest: str) -> bytes:
        """A small blob's bytes; raises DataLoss when they no longer match or are gone."""
        try:
            content = self.path(digest).read_bytes()
        except FileNotFoundError:
            raise DataLoss(f"blob {digest} is recorded but not on disk") from None
        if _hash(digest, content) != digest:
            raise DataLoss(f"blob {digest} on disk no longer matches its digest")
        return content

    def put(self, digest: str, content: bytes) -> None:
        """Store a small blob that is already in memory."""
        if not self.has(digest):
            target = self.path(digest)
            part = (
                self._root / "ingest" / f"{target.name}.{next(self._numbers)}"
            )  # two may put the same at once
            with Ingest(part, target, digest, len(content), False, self._record) as ingest:
                try:
                    ingest.write(content)
                    ingest.commit()
                except BaseException:
                    ingest.abort()  # it is not what a later pull would resume
                    raise

    def ingest(self, digest: str, size: int, *, resume: bool = True) -> Ingest:
        """For the download of `digest`, which must come out `size` bytes long. Does not block for long.

        `resume`: what an earlier one left is kept, for `Ingest.take_up`.
        """
        target = self.path(digest)
        return Ingest(self._root / "ingest" / target.name, target, digest, size, resume, self._record)

    def delete(self, digest: str) -> None:
        self.path(digest).unlink(missing_ok=True)
        with self._lock:
            self._used -= self._known.pop(digest, 0)

    def sweep(self, keep: Collection[str], *, older_than_s: float) -> None:
        """Delete blobs that nobody needs and parts nobody came back for, once they are old enough."""
        horizon = time.time() - older_than_s
        for digest in [known for known in self._known if known not in keep]:
            if _modified(self.path(digest)) <= horizon:
                self.delete(digest)
        for part in (self._root / "ingest").iterdir():
            if part.name not in {digest.partition(":")[2] for digest in keep} and _modified(part) <= horizon:
                part.unlink(missing_ok=True)

    def discard_part(self, digest: str) -> None:
        (self._root / "ingest" / self.path(digest).name).unlink(missing_ok=True)

    def _record(self, digest: str, size: int) -> None:
        with self._lock:
            self._used += size - self._known.get(digest, 0)
            self._known[digest] = size


class Ingest:
    """One blob being written. Close without `commit` keeps the part for a later resume."""

    def __init__(
        self,
        part: Path,
        target: Path,
        digest: str,
        size: int,
        resume: bool,
        record: Callable[[str, int], None],
    ) -> None:
        self._part, self._target, self.digest, self._size, self._record = part, target, digest, size, record
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | (0 if resume else os.O_TRUNC)
        self._file = os.fdopen(os.open(part, flags, 0o600), "r+b", buffering=0)
        self.offset = 0
        self._hash = hashlib.new(digest.partition(":")[0])

    def __enter__(self) -> Ingest:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def take_up(self) -> None:
        """Count and hash what an earlier download has left."""
        while chunk := self._file.read(_READ_SIZE):
            self._hash.update(chunk)
            self.offset += len(chunk)
        if self.offset > self._size:
            self.restart()

    def write(self, chunk: bytes | bytearray) -> None:
        """Append; raises DataLoss as soon as there is more than the descriptor promised."""
        if self.offset + len(chunk) > self._size:
            self.abort()
            raise DataLoss(f"blob {self.digest}: longer than its {self._size} bytes")
        view = memoryview(chunk)
        while view:
            view = view[self._file.write(view) or 0 :]
        self._hash.update(chunk)
        self.offset += len(chunk)

    def restart(self) -> None:
        """Forget what was written: the sender begins anew."""
        self._file.seek(0)
        self._file.truncate()
        self.offset = 0
        self._hash = hashlib.new(self.digest.partition(":")[0])

    def commit(self) -> None:
        """Verify length and digest, sync, and show the blob under its name."""
        if self.offset != self._size:
            self.abort()
            raise DataLoss(f"blob {self.digest}: {self.offset} bytes came, {self._size} were promised")
        found = f"{self.digest.partition(':')[0]}:{self._hash.hexdigest()}"
        if found != self.digest:
            self.abort()
            raise DataLoss(f"blob {self.digest}: content has digest {found}")
        os.fsync(self._file.fileno())
        os.rename(self._part, self._target)
        sync_folder(self._target.parent)
        self._record(self.digest, self._size)

    def abort(self) -> None:
        self._part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power loss (fsync(2), on the directory)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _hash(digest: str, content: bytes) -> str:
    algorithm = digest.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0

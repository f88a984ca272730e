"""Blobs by digest: `blobs/<algorithm>/<hex>`, and unfinished downloads in `ingest/`.

A blob gets its name only after its bytes were hashed, synced and renamed, so a crash leaves either the whole
blob or a part in `ingest/` that a later pull resumes. A part belongs to its source: it is only resumed from
the same repository of the same registry, so that a registry cannot corrupt downloads from others. All methods
block: call them in a thread, except `has`, `size`, `path`, `ingest` and `delete`.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from phantom_cri.errors import DataLoss, ResourceExhausted
from phantom_cri.images.reference import is_digest
from phantom_cri.images.trash import Trash

_READ_SIZE = 1 << 20


class ContentStore:
    """The blobs under one root. Keeps counts of bytes and files, so that usage is known without a scan."""

    def __init__(self, root: Path, trash: Trash) -> None:
        self._root = root
        self._trash = trash
        self._known: dict[str, int] = {}
        self._used = 0
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._writing: set[Path] = set()

    def open(self) -> None:
        """Create the folders and list existing blobs."""
        for name in ("blobs/sha256", "blobs/sha512", "ingest"):
            (self._root / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        for algorithm in ("sha256", "sha512"):
            with os.scandir(self._root / "blobs" / algorithm) as blobs:
                for blob in blobs:
                    self.record(f"{algorithm}:{blob.name}", blob.stat().st_size)

    @property
    def used_bytes(self) -> int:
        return self._used

    @property
    def count(self) -> int:
        return len(self._known)

    @property
    def writing(self) -> int:
        """Blobs being fetched."""
        return len(self._writing)

    def digests(self) -> tuple[str, ...]:
        return tuple(self._known)

    def has(self, digest: str) -> bool:
        return digest in self._known

    def size(self, digest: str) -> int | None:
        """Size of a stored blob."""
        return self._known.get(digest)

    def path(self, digest: str) -> Path:
        if not is_digest(digest):
            raise DataLoss(f"digest {digest[:200]!r} is not sha256 or sha512 in lower-case hex")
        return self._root / "blobs" / digest.replace(":", "/")

    def read(self, digest: str, limit: int) -> bytes:
        """A small blob's bytes; raises DataLoss if they do not match the digest or are missing.

        `limit`: a manifest may name any stored blob, of any size. Raises ResourceExhausted.
        """
        try:
            with self.path(digest).open("rb") as file:
                content = file.read(limit + 1)
        except FileNotFoundError:
            raise DataLoss(f"blob {digest} is recorded but not on disk") from None
        if len(content) > limit:
            raise ResourceExhausted(f"blob {digest} has more than the {limit} bytes that are allowed")
        if not matches(digest, content):
            raise DataLoss(f"blob {digest} on disk no longer matches its digest")
        return content

    def put(self, digest: str, content: bytes) -> None:
        """Store a small blob from memory."""
        if not self.has(digest):
            with self.ingest(digest, len(content)) as ingest:
                ingest.write(content)
                ingest.commit()

    def ingest(self, digest: str, size: int, source: str = "") -> Ingest:
        """For the download of `digest`, which must be `size` bytes long. Does not block for long.

        `source`: identifies the registry and repository. A part of an earlier download from there is kept for
        `Ingest.take_up`, unless it is being written; without a source none is.
        """
        target = self.path(digest)
        origin = hashlib.sha256(source.encode()).hexdigest()[:16]
        part = self._root / "ingest" / f"{target.name}.{origin}"
        resumable = bool(source) and part not in self._writing
        if not resumable:
            part = part.with_suffix(f".{next(self._numbers)}")
        self._writing.add(part)
        try:
            return Ingest(self, part, target, digest, size, resumable)
        except BaseException:
            self._writing.discard(part)
            raise

    def delete(self, digest: str) -> None:
        """Remove a blob's name at once; it is deleted in the background."""
        with self._lock:
            if digest in self._known:
                self._used -= self._known.pop(digest)
                self._trash.discard(str(self.path(digest)))

    def stale(self, keep: Collection[str], older_than_s: float) -> list[str]:
        """Blobs not in `keep` and older than this; also deletes such parts of downloads."""
        horizon = time.time() - older_than_s
        kept = {digest.partition(":")[2] for digest in keep}
        for part in (self._root / "ingest").iterdir():
            if part.stem not in kept and part not in self._writing and _modified(part) <= horizon:
                part.unlink(missing_ok=True)
        unused = [digest for digest in self.digests() if digest not in keep]
        return [digest for digest in unused if _modified(self.path(digest)) <= horizon]

    def discard_parts(self, digests: Collection[str]) -> None:
        """Delete parts of downloads of these digests, except those being written."""
        names = {digest.partition(":")[2] for digest in digests}
        for part in (self._root / "ingest").iterdir():
            if part.stem in names and part not in self._writing:
                part.unlink(missing_ok=True)

    def record(self, digest: str, size: int) -> None:
        with self._lock:
            self._used += size - self._known.get(digest, 0)
            self._known[digest] = size

    def close_part(self, part: Path) -> None:
        self._writing.discard(part)


class Ingest:
    """One blob being written. Closed without `commit`, a `resumable` part is kept for a later resume."""

    def __init__(
        self, store: ContentStore, part: Path, target: Path, digest: str, size: int, resumable: bool
    ) -> None:
        self._store, self._part, self._target = store, part, target
        self.digest, self._size, self._resumable = digest, size, resumable
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | (0 if resumable else os.O_TRUNC)
        self._file = os.fdopen(os.open(part, flags, 0o600), "r+b", buffering=0)
        self.offset = 0
        self._hash = hashlib.new(digest.partition(":")[0])

    def __enter__(self) -> Ingest:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if not self._resumable:
            self.abort()
        self._store.close_part(self._part)

    def take_up(self) -> None:
        """Hash the part left by an earlier download, and continue after it."""
        while chunk := self._file.read(_READ_SIZE):
            self._hash.update(chunk)
            self.offset += len(chunk)
        if self.offset > self._size:
            self.restart()

    def write(self, chunk: bytes | bytearray) -> None:
        """Append; raises DataLoss if the blob becomes longer than its descriptor says."""
        if self.offset + len(chunk) > self._size:
            self.abort()
            raise DataLoss(f"blob {self.digest}: longer than its {self._size} bytes")
        view = memoryview(chunk)
        while view:
            view = view[self._file.write(view) or 0 :]
        self._hash.update(chunk)
        self.offset += len(chunk)

    def restart(self) -> None:
        """Drop what was written: the sender starts from the beginning."""
        self._file.seek(0)
        self._file.truncate()
        self.offset = 0
        self._hash = hashlib.new(self.digest.partition(":")[0])

    def commit(self) -> None:
        """Verify length and digest, sync, and rename the blob to its name."""
        if self.offset != self._size:
            self.abort()
            raise DataLoss(f"blob {self.digest}: received {self.offset} bytes, expected {self._size}")
        found = f"{self.digest.partition(':')[0]}:{self._hash.hexdigest()}"
        if found != self.digest:
            self.abort()
            raise DataLoss(f"blob {self.digest}: content has digest {found}")
        os.fsync(self._file.fileno())
        with opened_folder(self._target.parent) as folder:
            os.rename(self._part, self._target)
            os.fsync(folder)
        self._store.record(self.digest, self._size)

    def abort(self) -> None:
        self._part.unlink(missing_ok=True)


@contextlib.contextmanager
def opened_folder(folder: Path) -> Iterator[int]:
    """Its fd: fsync(2) on it makes a rename inside survive a power loss. Opened before the rename, since a
    failed open after it would leave the renamed file."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def matches(digest: str, content: bytes) -> bool:
    algorithm, _, expected = digest.partition(":")
    return hashlib.new(algorithm, content).hexdigest() == expected


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0

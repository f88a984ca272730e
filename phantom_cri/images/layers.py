"""Unpacked layers, shared between images: `layers/<name>/` and its record `layers/<name>.json`.

One folder per DiffID, whatever image or chain it is part of: most layers do not depend on
what is below them. One that does (a hard link into a lower layer, a parent folder that the
archive does not name, a whiteout that hides nothing) is kept per ChainID instead, so that no
image ever sees what another has below. Names are short because overlayfs takes all layers of
a container in one option string of a page, where the kernel has no better way.

A layer exists once its record does: the folder is synced and renamed before. Holders keep
layers alive (`image:…`, `container:…`, `pull:…`); whoever lets go of the last hold calls
`collect`. Holding and looking up is for the event loop's thread alone.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from phantom_cri import native
from phantom_cri.codec import NewerSchema, Stored, from_stored, sync_folder, to_json, write_atomically
from phantom_cri.errors import DataLoss, Internal, kernel_error
from phantom_cri.images.layertar import LayerStream
from phantom_cri.images.limits import Limits
from phantom_cri.images.manifest import DECODE_ERRORS
from phantom_cri.images.tarheader import BLOCK, is_header
from phantom_cri.images.trash import Trash
from phantom_cri.images.unpack import is_plain_root, unpack

log = logging.getLogger(__name__)

WASM = "application/wasm"

_SNIFF_LIMIT = 1 << 20


class LayerRecord(Stored, frozen=True):
    """`key` is `diff:<DiffID>` or `chain:<ChainID>`; `used_bytes` counts allocated blocks.

    `names_root`: whether the archive says what the root folder is like, see `LayerStore.find`.
    `blob_bytes`: size of the archive as it was fetched.
    """

    name: str
    key: str
    diff_id: str
    used_bytes: int
    inodes: int
    names_root: bool = False
    blob_bytes: int = 0


class LayerStore:
    def __init__(self, root: Path, trash: Trash, limits: Limits) -> None:
        self._folder = root / "layers"
        self._prefix = f"{self._folder}/"
        self._staging = root / "staging"
        self._trash = trash
        self._limits = limits
        self._records: dict[str, LayerRecord] = {}
        self._by_key: dict[str, str] = {}
        self._others: set[str] = set()  # of a newer schema
        self._held: dict[str, tuple[str, ...]] = {}
        self._counts: dict[str, int] = {}
        self._numbers = itertools.count()
        self._naming = threading.Lock()
        self.used_bytes = 0
        self.inodes = 0

    def open(self) -> None:
        """Load the records; throw away folders without one and records without a folder.

        A record of a newer schema and its folder stay as they are, for nobody to find.
        """
        for folder in (self._folder, self._staging):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in self._staging.iterdir():
            self._trash.discard(str(left))
        names = {entry.name for entry in self._folder.iterdir()}
        for name in names:
            if name.endswith(".json"):
                try:
                    record = self._load(name)
                except NewerSchema as error:
                    log.error("layer %s is not used and left as it is: %s", self._folder / name, error)
                    self._others.add(name.removesuffix(".json"))
                    continue
                if record is not None and record.name in names:
                    self._add(record)
                else:
                    (self._folder / name).unlink(missing_ok=True)
        for name in names:
            if not name.endswith(".json") and name not in self._records.keys() | self._others:
                self._trash.discard(self.path(name))

    def __len__(self) -> int:
        return len(self._records)

    @property
    def holds(self) -> int:
        """How often layers are held: twice for two layers of one holder, and for one layer of two."""
        return sum(self._counts.values())

    def path(self, name: str) -> str:
        return self._prefix + name

    def name_of(self, path: str) -> str:
        return path.removeprefix(self._prefix)

    def find(self, diff_id: str, chain_id: str, below: str | None = None) -> str | None:
        """Name of the layer, if it is unpacked already. `below`: the layer that it is to lie on.

        The topmost layer's root folder is what a container sees as `/`. A layer whose archive does
        not name it takes after the one below, and so is of use only where that is as it was.
        """
        name = self._by_key.get(f"diff:{diff_id}")
        if name and (self._records[name].names_root or below is None or self._has_plain_root(below)):
            return name
        return self._by_key.get(f"chain:{chain_id}")

    def diff_id(self, name: str) -> str:
        return self._records[name].diff_id

    def size(self, name: str) -> int:
        """Bytes that had to be fetched for a layer, as they were counted then."""
        record = self._records[name]
        return record.blob_bytes or record.used_bytes

    def add(
        self, blob: Path, diff_id: str, chain_id: str, lower: tuple[str, ...], cancelled: threading.Event
    ) -> LayerRecord:
        """Unpack `blob` over `lower` (names, top first). Blocks: for a thread, which then hands the
        record to `adopt` in the event loop. A failure leaves nothing.
        """
        staged = self._staging / f"layer-{next(self._numbers)}"
        staged.mkdir(mode=0o700)
        try:
            with blob.open("rb", buffering=0) as source:
                done = unpack(
                    source, str(staged), [self.path(name) for name in lower], self._limits, cancelled
                )
            if done.diff_id != diff_id:
                raise DataLoss(
                    f"layer {blob.name}: content has DiffID {done.diff_id}, the image says {diff_id}"
                )
            key = f"chain:{chain_id}" if done.needs_lower else f"diff:{diff_id}"
            used_bytes, inodes = measure(str(staged))
            sync_filesystem(staged)
            with self._naming:  # the same layer may be shown twice at once, from two different blobs
                name = self._new_name(key)
                os.rename(staged, self.path(name))
            record = LayerRecord(name, key, diff_id, used_bytes, inodes, done.names_root, blob.stat().st_size)
            self._show(record)
        except BaseException:
            self._trash.discard(str(staged))
            raise
        return record

    def _show(self, record: LayerRecord) -> None:
        path = self._record_path(record.name)
        try:
            sync_folder(str(self._folder))
            write_atomically(path, to_json(record), durable=True)
        except BaseException:
            path.unlink(missing_ok=True)
            self._trash.discard(self.path(record.name))
            raise

    def _has_plain_root(self, name: str) -> bool:
        return is_plain_root(os.lstat(self.path(name)))

    def adopt(self, record: LayerRecord) -> str:
        self._add(record)
        return record.name

    def hold(self, holder: str, names: Iterable[str]) -> None:
        """Keep layers for `holder`, in place of what it held before."""
        wanted = tuple(names)
        for name in wanted:
            self._counts[name] = self._counts.get(name, 0) + 1
        self.release(holder)
        self._held[holder] = wanted

    def release(self, holder: str) -> None:
        for name in self._held.pop(holder, ()):
            self._counts[name] -= 1

    def held(self, holder: str) -> tuple[str, ...]:
        return self._held.get(holder, ())

    def collect(self) -> None:
        """Throw away every layer that nobody holds. Without its record, which goes first, it is rubbish."""
        for name in [name for name in self._records if not self._counts.get(name)]:
            record = self._records.pop(name)
            self._counts.pop(name, None)
            if self._by_key.get(record.key) == name:
                del self._by_key[record.key]
            self.used_bytes -= record.used_bytes
            self.inodes -= record.inodes
            self._record_path(name).unlink(missing_ok=True)
            self._trash.discard(self.path(name))

    def is_free(self, name: str) -> bool:
        return not self._counts.get(name)

    def has(self, name: str) -> bool:
        return name in self._records

    def is_of_newer(self, name: str) -> bool:
        """Whether it is there, in a way that only a later release can tell of."""
        return name in self._others

    def hold_all(self, holder: str) -> None:
        """Keep every layer that is here now, for somebody of whom it is not known which they are."""
        self.hold(holder, self._records)

    @property
    def folders(self) -> tuple[Path, ...]:
        """All below which there are files of images; they may not be there yet."""
        return self._staging, self._folder

    def staging(self, name: str) -> Path:
        """A place for temporary files, swept at every start."""
        return self._staging / name

    def _add(self, record: LayerRecord) -> None:
        self._records[record.name] = record
        known = self._records.get(self._by_key.get(record.key, ""))
        if known is None or (record.names_root and not known.names_root):  # an earlier daemon did not note it
            self._by_key[record.key] = record.name
        self.used_bytes += record.used_bytes
        self.inodes += record.inodes

    def _load(self, file_name: str) -> LayerRecord | None:
        try:
            return from_stored((self._folder / file_name).read_bytes(), LayerRecord)
        except DECODE_ERRORS:
            return None

    def _record_path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _new_name(self, key: str) -> str:
        """Eight letters from the key's hash; more in the unlikely case that they are taken."""
        digest = base64.b32encode(hashlib.sha256(key.encode()).digest()).decode().lower()
        for length in range(8, 33):
            if not os.path.lexists(self.path(digest[:length])):
                return digest[:length]
        raise Internal(f"no free name for layer {key}")


def sniff(blob: Path) -> str:
    """What a layer's blob holds, compressed or not: "tar", or the media type of what is no archive. Blocks.

    By content alone: what a manifest calls a layer is not covered by the image's id.
    """
    head = bytearray()
    with blob.open("rb", buffering=0) as source:
        stream = LayerStream(source, _SNIFF_LIMIT)
        while len(head) < BLOCK and (part := stream.read(BLOCK - len(head))):
            head += part
    if not head or head == bytes(BLOCK) or (len(head) == BLOCK and is_header(bytes(head))):
        return "tar"
    return WASM if head.startswith(b"\0asm") else "application/octet-stream"


def measure(folder: str) -> tuple[int, int]:
    """(allocated bytes, inodes) of a tree, hard links counted once; iterative, so depth does not matter."""
    status = os.lstat(folder)
    used, seen = status.st_blocks * 512, {status.st_ino}
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if status.st_ino not in seen:
                    seen.add(status.st_ino)
                    used += status.st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
    return used, len(seen)


def sync_filesystem(folder: Path) -> None:
    """Thousands of small files reach the disk with one call."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        native.syncfs(fd)
    except OSError as error:
        raise kernel_error(f"syncfs {folder}", error.errno or 0) from error
    finally:
        os.close(fd)

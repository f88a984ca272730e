"""Unpacked layers, shared between images: `layers/<name>/` and its record `layers/<name>.json`.

There is one folder per DiffID, for all images and chains: most layers do not depend on the layers below. One
that does (a hard link to a lower layer, a parent folder that is not in the archive, a whiteout that hides
nothing) is stored per ChainID instead, so that content of other images below cannot leak into it. Names are
short because on some kernels overlayfs gets all layers of a container in one option string of a page.

A layer exists if its record exists: its folder is synced and renamed before. Holders keep layers (`image:…`,
`container:…`, `pull:…`); after releasing a hold `collect` has to be called. Holding and looking up is only
for the event loop's thread.
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

    `names_root`: whether the archive has an entry for the root folder, see `LayerStore.find`.
    `blob_bytes`: size of the archive as fetched.
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
        """Load the records; delete folders without a record and records without a folder.

        Records of a newer schema and their folders are ignored and not changed.
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
                    log.error("layer %s is ignored and not changed: %s", self._folder / name, error)
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
        """Number of holds: two layers of one holder count twice, as one layer of two holders."""
        return sum(self._counts.values())

    def path(self, name: str) -> str:
        return self._prefix + name

    def name_of(self, path: str) -> str:
        return path.removeprefix(self._prefix)

    def find(self, diff_id: str, chain_id: str, below: str | None = None) -> str | None:
        """Name of the layer, if it is already unpacked. `below`: the layer directly below it.

        The topmost layer's root folder is the container's `/`. A layer whose archive has no entry for the
        root copies its attributes from the layer below, and can only be used over an equal one.
        """
        name = self._by_key.get(f"diff:{diff_id}")
        if name and (self._records[name].names_root or below is None or self._has_plain_root(below)):
            return name
        return self._by_key.get(f"chain:{chain_id}")

    def diff_id(self, name: str) -> str:
        return self._records[name].diff_id

    def size(self, name: str) -> int:
        """Bytes fetched for a layer, as recorded then."""
        record = self._records[name]
        return record.blob_bytes or record.used_bytes

    def add(
        self, blob: Path, diff_id: str, chain_id: str, lower: tuple[str, ...], cancelled: threading.Event
    ) -> LayerRecord:
        """Unpack `blob` over `lower` (names, top first). Blocks: to be called in a thread; pass the record to
        `adopt` in the event loop then. On failure nothing is left.
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
            with self._naming:  # the same layer may be unpacked concurrently from two different blobs
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
        """Keep layers for `holder`, replacing its earlier holds."""
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
        """Delete layers without a hold. Their records are deleted first."""
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
        """Whether it exists with a record of a newer schema."""
        return name in self._others

    def hold_all(self, holder: str) -> None:
        """Keep all current layers, for a holder whose layers are unknown."""
        self.hold(holder, self._records)

    @property
    def folders(self) -> tuple[Path, ...]:
        """All folders with files of images; they may not exist yet."""
        return self._staging, self._folder

    def staging(self, name: str) -> Path:
        """A folder for temporary files, cleaned up at every start."""
        return self._staging / name

    def _add(self, record: LayerRecord) -> None:
        self._records[record.name] = record
        known = self._records.get(self._by_key.get(record.key, ""))
        if known is None or (record.names_root and not known.names_root):  # not recorded by an earlier daemon
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
        """Eight letters of the key's hash; more in the unlikely case that they are in use."""
        digest = base64.b32encode(hashlib.sha256(key.encode()).digest()).decode().lower()
        for length in range(8, 33):
            if not os.path.lexists(self.path(digest[:length])):
                return digest[:length]
        raise Internal(f"no free name for layer {key}")


def sniff(blob: Path) -> str:
    """The type of a layer's blob, compressed or not: "tar", or the media type of another content. Blocks.

    Determined by content only: the manifest's media types are not covered by the image's id.
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
    """Sync the whole file system: one call for thousands of small files."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        native.syncfs(fd)
    except OSError as error:
        raise kernel_error(f"syncfs {folder}", error.errno or 0) from error
    finally:
        os.close(fd)

"""The images and their names: in memory, with one record per image on disk.

An image is identified by its config: it has one id, whatever its tags, digests and registries. A name belongs
to one image, the last one pulled under it. Removing by any name removes the image with all its names, as CRI
requires.
"""

from __future__ import annotations

import fnmatch
import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from phantom_cri.codec import (
    NewerSchema,
    Stored,
    from_stored,
    replace,
    sync_folder,
    to_json,
    write_atomically,
)
from phantom_cri.errors import InvalidArgument
from phantom_cri.images import reference
from phantom_cri.images.manifest import DECODE_ERRORS
from phantom_cri.model import Image, ImageConfig

log = logging.getLogger(__name__)

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_ID_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{3,63})")


class Artifact(Stored, frozen=True):
    """A layer that is not a file system: a Wasm module, an attestation. Stored as its blob."""

    digest: str
    media_type: str
    size: int


class ImageRecord(Stored, frozen=True):
    """The record of an image. `layers`: names, top first; `blobs`: needed content.

    `artifact_type`: of an artifact, whose id is its manifest's digest; "" for an image.
    `changed_at`: nanoseconds, later than that of every record written before it.
    """

    id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    size: int = 0
    config: ImageConfig = ImageConfig()
    layers: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    artifact_type: str = ""
    manifest: str = ""
    config_digest: str = ""
    config_type: str = ""
    architecture: str = ""
    os: str = ""
    changed_at: int = 0


class ImageStore:
    """For the event loop's thread; `save` and `erase` block on the disk and use no shared state."""

    def __init__(self, root: Path, pinned: Sequence[str]) -> None:
        self._folder = root / "images"
        self._pinned = tuple(pinned)
        self._records: dict[str, ImageRecord] = {}
        self._images: dict[str, Image] = {}
        self._names: dict[str, str] = {}
        self.has_others = False  # there are records of a newer schema, whose needs are unknown

    def open(self, is_whole: Callable[[ImageRecord], bool | None]) -> list[str]:
        """Load complete images; returns the ids of unusable records, which were removed.

        Ignored and not changed: records of a newer schema, and those for which `is_whole` returns None.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        broken: list[str] = []
        found: list[ImageRecord] = []
        for file in self._folder.iterdir():
            try:
                record = from_stored(file.read_bytes(), ImageRecord) if file.suffix == ".json" else None
            except DECODE_ERRORS:
                record = None
            except NewerSchema as error:
                self._leave(file, str(error))
                continue
            whole = is_whole(record) if record else False
            if record and whole:
                found.append(record)
            elif whole is None:
                self._leave(file, "one of its layers has a record of a newer phantom-cri")
            else:
                file.unlink()
                broken.append(file.name)
        for record in sorted(found, key=lambda each: each.changed_at):
            for loser in self.show(record):  # after a crash between two writes both have the moved name
                self.save(loser)  # else the name would reappear when the newer one is removed
        return broken

    def find(self, name: str) -> str | None:
        """Id of an image by its id, a reference, or a unique prefix of the id."""
        exact = _ID.fullmatch(name)
        if exact:
            image_id = f"sha256:{exact[1]}"
            return image_id if image_id in self._records else None
        known = self._names.get(name) or self._by_reference(name)
        if known:
            return known
        prefix = _ID_PREFIX.fullmatch(name)
        matches = [known for known in self._records if prefix and known.startswith(f"sha256:{prefix[1]}")]
        return matches[0] if len(matches) == 1 else None

    def image(self, image_id: str) -> Image:
        return self._images[image_id]

    def record(self, image_id: str) -> ImageRecord | None:
        return self._records.get(image_id)

    def images(self) -> tuple[Image, ...]:
        return tuple(self._images.values())

    def records(self) -> tuple[ImageRecord, ...]:
        return tuple(self._records.values())

    def has_name(self, name: str) -> bool:
        """Whether an image has exactly this canonical name, `repository:tag` or `repository@digest`."""
        return name in self._names

    def next_change(self) -> int:
        """A `changed_at` for a record written now, increasing even if the node's clock was set back."""
        return max([time.time_ns(), *(each.changed_at + 1 for each in self._records.values())])

    def show(self, record: ImageRecord) -> list[ImageRecord]:
        """Make a record visible; returns the records of other images that lost a name to it."""
        names = {*record.tags, *record.digests}
        owners = {owner for name in names if (owner := self._names.get(name, record.id)) != record.id}
        losers = [self._without(self._records[owner], names) for owner in owners]
        self._set(record)
        return losers

    def hide(self, image_id: str) -> ImageRecord | None:
        """Remove an image and all its names from memory."""
        record = self._records.pop(image_id, None)
        if record is not None:
            del self._images[image_id]
            for name in (*record.tags, *record.digests):
                self._names.pop(name, None)
        return record

    def save(self, record: ImageRecord) -> None:
        write_atomically(self._path(record.id), to_json(record), durable=True)

    def erase(self, image_id: str) -> None:
        self._path(image_id).unlink(missing_ok=True)
        sync_folder(str(self._folder))

    def _leave(self, file: Path, why: str) -> None:
        log.error("image %s is ignored and not changed: %s", file.stem, why)
        self.has_others = True

    def _by_reference(self, name: str) -> str | None:
        try:
            return self._names.get(reference.parse(name).canonical)
        except InvalidArgument:
            return None

    def _without(self, record: ImageRecord, names: set[str]) -> ImageRecord:
        changed = replace(
            record,
            tags=tuple(each for each in record.tags if each not in names),
            digests=tuple(each for each in record.digests if each not in names),
        )
        self._set(changed)
        return changed

    def _set(self, record: ImageRecord) -> None:
        names = (*record.tags, *record.digests)
        self._records[record.id] = record
        self._names.update(dict.fromkeys(names, record.id))
        self._images[record.id] = Image(
            id=record.id,
            repo_tags=record.tags,
            repo_digests=record.digests,
            size=record.size,
            config=record.config,
            pinned=any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in self._pinned),
        )

    def _path(self, image_id: str) -> Path:
        return self._folder / f"{image_id.partition(':')[2]}.json"

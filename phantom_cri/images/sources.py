"""The source of an image: a registry, or an archive unpacked to a folder."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from phantom_cri.errors import DataLoss, NotFound, ResourceExhausted
from phantom_cri.images.content import ContentStore, digest_of, matches
from phantom_cri.images.manifest import CONFIG_TYPES, Descriptor, is_tar_type
from phantom_cri.images.reference import Reference
from phantom_cri.images.registry import Fetched, Registry
from phantom_cri.images.threads import Threads

_READ_SIZE = 1 << 20


class Source(Protocol):
    @property
    def origin(self) -> Hashable:
        """Equal for sources with the same place and the same credentials."""

    async def manifest(self, descriptor: Descriptor) -> Fetched:
        """The manifest or index that an index names."""

    async def fetch(self, blob: Descriptor, progress: Callable[[int], None]) -> None:
        """Fetch `blob` into the content store, verified; `progress` gets the bytes so far."""


@dataclass
class Remote:
    """A repository of a registry.

    `known`: whether a name `repository@digest` belongs to an image of this node. Only then manifests are read
    from the content store: otherwise a registry could set its own name on any image of this node, just by
    sending a digest.
    """

    registry: Registry
    content: ContentStore
    threads: Threads
    origin: Hashable
    known: Callable[[str], bool]
    manifest_bytes: int
    _has_shown: bool = False

    async def resolve(self, name: Reference) -> Fetched:
        """What `name` points to now. Always asks the registry, so that credentials are checked."""
        found = await self.registry.resolve(name.object)
        if isinstance(found, Fetched):
            return found
        if self.known(name.with_digest(found)):
            stored = await self._stored(found)
            if stored is not None:
                self._has_shown = True
                return Fetched(found, "", stored)
        try:
            return await self._fetched(found)
        except NotFound:
            if name.digest:
                raise
            return await self._fetched(name.object)  # the tag was moved, and its earlier content is gone

    async def manifest(self, descriptor: Descriptor) -> Fetched:
        stored = await self._stored(descriptor.digest) if self._has_shown else None
        if stored is not None:
            return Fetched(descriptor.digest, descriptor.media_type, stored)
        return await self._fetched(descriptor.digest)

    async def _fetched(self, reference: str) -> Fetched:
        fetched = await self.registry.manifest(reference)
        if not matches(fetched.digest, fetched.content):
            raise DataLoss(f"manifest {reference}: its content has digest {digest_of(fetched.content)}")
        return fetched

    async def _stored(self, digest: str) -> bytes | None:
        """None also for a damaged or deleted blob, which can be fetched again."""
        if not self.content.has(digest):
            return None
        try:
            return await self.threads.run(self.content.read, digest, self.manifest_bytes)
        except DataLoss:
            self.content.delete(digest)
            return None

    async def fetch(self, blob: Descriptor, progress: Callable[[int], None]) -> None:
        is_config = blob.media_type in CONFIG_TYPES
        what = "config" if is_config else "layer" if is_tar_type(blob.media_type) else "blob"
        await self.registry.blob(what, blob.digest, blob.size, self.content, self.threads, progress)


@dataclass(frozen=True)
class Unpacked:
    """An archive's blobs as files, by digest; nothing is shared with other pulls and loads."""

    files: dict[str, Path]
    content: ContentStore
    threads: Threads
    manifest_bytes: int
    origin: Hashable = field(default_factory=object)

    async def manifest(self, descriptor: Descriptor) -> Fetched:
        content = await self.threads.run(self._read, descriptor)
        if not matches(descriptor.digest, content):
            raise DataLoss(f"archive: blob {descriptor.digest} has digest {digest_of(content)}")
        return Fetched(descriptor.digest, descriptor.media_type, content)

    async def fetch(self, blob: Descriptor, progress: Callable[[int], None]) -> None:
        await self.threads.run(self._copy, blob)
        progress(blob.size)

    def _read(self, descriptor: Descriptor) -> bytes:
        with self._file(descriptor).open("rb") as file:
            content = file.read(self.manifest_bytes + 1)
        if len(content) > self.manifest_bytes:
            raise ResourceExhausted(
                f"archive: manifest {descriptor.digest} is over {self.manifest_bytes} bytes"
            )
        return content

    def _copy(self, blob: Descriptor) -> None:
        with (
            self._file(blob).open("rb") as file,
            self.content.ingest(blob.digest, blob.size) as ingest,
        ):
            while chunk := file.read(_READ_SIZE):
                ingest.write(chunk)
            ingest.commit()

    def _file(self, blob: Descriptor) -> Path:
        if blob.digest not in self.files:
            raise DataLoss(f"archive: blob {blob.digest} is missing")
        return self.files[blob.digest]

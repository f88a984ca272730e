"""Where an image comes from: a registry, or an archive laid out in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from phantom_cri.errors import DataLoss
from phantom_cri.images.content import ContentStore, digest_of
from phantom_cri.images.manifest import CONFIG_TYPES, Descriptor, is_tar_layer
from phantom_cri.images.reference import Reference
from phantom_cri.images.registry import Fetched, Registry
from phantom_cri.images.threads import Threads

_READ_SIZE = 1 << 20


class Source(Protocol):
    async def manifest(self, descriptor: Descriptor) -> Fetched:
        """The manifest or index that an index names."""

    async def fetch(self, blob: Descriptor, progress: Callable[[int], None]) -> None:
        """Bring `blob` into the content store, verified; `progress` gets the bytes so far."""


@dataclass(frozen=True)
class Remote:
    registry: Registry
    content: ContentStore
    threads: Threads

    async def resolve(self, name: Reference) -> Fetched:
        """What `name` points to now. A registry is always asked, so credentials are always checked."""
        found = await self.registry.resolve(name.object)
        if isinstance(found, Fetched):
            return found
        if self.content.has(found):
            return Fetched(found, "", await self.threads.run(self.content.read, found))
        return await self.registry.manifest(found)

    async def manifest(self, descriptor: Descriptor) -> Fetched:
        if self.content.has(descriptor.digest):
            content = await self.threads.run(self.content.read, descriptor.digest)
            return Fetched(descriptor.digest, descriptor.media_type, content)
        return await self.registry.manifest(descriptor.digest)

    async def fetch(self, blob: Descriptor, progress: Callable[[int], None]) -> None:
        is_config = blob.media_type in CONFIG_TYPES
        what = "config" if is_config else "layer" if is_tar_layer(blob.media_type) else "blob"
        await self.registry.blob(what, blob.digest, blob.size, self.content, self.threads, progress)


@dataclass(frozen=True)
class Unpacked:
    """An archive's blobs as files, by digest."""

    files: dict[str, Path]
    content: ContentStore
    threads: Threads

    async def manifest(self, descriptor: Descriptor) -> Fetched:
        content = await self.threads.run(self._file(descriptor).read_bytes)
        if digest_of(content) != descriptor.digest:
            raise DataLoss(f"archive: blob {descriptor.digest} has digest {digest_of(content)}")
        return Fetched(descriptor.digest, descriptor.media_type, content)

    async def fetch(self, blob: Descriptor, progress: Callable[[int], None]) -> None:
        await self.threads.run(self._copy, blob)
        progress(blob.size)

    def _copy(self, blob: Descriptor) -> None:
        with (
            self._file(blob).open("rb") as file,
            self.content.ingest(blob.digest, blob.size, resume=False) as ingest,
        ):
            while chunk := file.read(_READ_SIZE):
                ingest.write(chunk)
            ingest.commit()

    def _file(self, blob: Descriptor) -> Path:
        if blob.digest not in self.files:
            raise DataLoss(f"archive: blob {blob.digest} is missing")
        return self.files[blob.digest]

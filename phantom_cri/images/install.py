"""Installs an image from its manifest: fetches blobs, unpacks layers, returns a record.

Layers are downloaded in parallel and unpacked in order, bottom first, each as soon as it and those below it
are complete. Compressed layers are deleted after unpacking: the node keeps an image's manifest, config and
layer folders.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Literal, Protocol

from phantom_cri.concurrency import settled
from phantom_cri.errors import DataLoss, FailedPrecondition, ResourceExhausted
from phantom_cri.images.content import ContentStore, digest_of
from phantom_cri.images.layers import WASM, LayerStore, sniff
from phantom_cri.images.limits import Limits
from phantom_cri.images.manifest import (
    CONFIG_TYPES,
    ConfigFile,
    Descriptor,
    Manifest,
    chain_ids,
    is_image_config,
    is_tar_type,
    parse_config,
)
from phantom_cri.images.singleflight import SharedWork
from phantom_cri.images.sources import Source
from phantom_cri.images.store import Artifact, ImageRecord
from phantom_cri.images.threads import Threads

LayerState = Literal["waiting", "downloading", "unpacking", "done", "exists"]


class LayerReport(Protocol):
    """Called in the event loop with progress of layers: a blob's digest, bytes done and total."""

    def __call__(self, digest: str, state: LayerState, done: int, total: int) -> None: ...


class Installer:
    """Shared by all pulls and loads, so that common blobs and layers are fetched and unpacked once.

    Downloads are shared by pulls from the same place with the same credentials.
    """

    def __init__(
        self, content: ContentStore, layers: LayerStore, threads: Threads, limits: Limits, parallel: int
    ) -> None:
        self._content = content
        self._layers = layers
        self._threads = threads
        self._limits = limits
        self._parallel = parallel
        self._downloads = SharedWork(limits.shared_progress_s)
        self._unpackings = SharedWork()

    async def install(
        self,
        digest: str,
        content: bytes,
        manifest: Manifest,
        source: Source,
        holder: str,
        report: LayerReport,
    ) -> ImageRecord:
        """Install one platform's manifest; returns a record without names.

        `holder` holds the layers on return. The record's id is a digest that covers the whole image: of the
        config if that lists the layers, so that any two manifests with this config are the same image; else,
        for an artifact, of the manifest.
        """
        descriptors = manifest.layers or ()
        if len(descriptors) > self._limits.layers:
            raise ResourceExhausted(
                f"image has {len(descriptors)} layers, at most {self._limits.layers} can be stacked"
            )
        if manifest.config.size > self._limits.config_bytes:
            raise ResourceExhausted(f"image config has {manifest.config.size} bytes")
        await self._threads.run(self._content.put, digest, content)
        config_content = await self._config(manifest.config, source, report)
        config, commits = _read_config(digest, manifest, config_content)
        if not commits and is_image_config(content):
            raise DataLoss(f"manifest {digest} is an image config as well: its meaning is ambiguous")
        job = _Job(self, manifest, config.diff_ids if commits else None, source, holder, report)
        names, artifacts = await job.run()
        layers_size = sum(map(self._layers.size, names)) + sum(each.size for each in artifacts)
        return ImageRecord(
            id=digest_of(config_content if commits else content),
            size=len(content) + len(config_content) + layers_size,
            config=config.process(),
            layers=names,
            blobs=(digest, manifest.config.digest, *(each.digest for each in artifacts)),
            artifacts=artifacts,
            artifact_type="" if commits else _artifact_type(manifest),
            manifest=digest,
            config_digest=manifest.config.digest,
            config_type=manifest.config.media_type,
            architecture=config.architecture or "",
            os=config.os or "",
        )

    async def _config(self, blob: Descriptor, source: Source, report: LayerReport) -> bytes:
        limit = self._limits.config_bytes
        await self._need(blob, source, report)
        try:
            return await self._threads.run(self._content.read, blob.digest, limit)
        except DataLoss:  # damaged on our disk after it was fetched
            self._content.delete(blob.digest)
            await self._need(blob, source, report)
            return await self._threads.run(self._content.read, blob.digest, limit)

    async def _need(self, blob: Descriptor, source: Source, report: LayerReport) -> None:
        """Get a blob into the content store: from the descriptor itself, another pull, or `source`."""

        async def fetch(got_on: Callable[[], None]) -> None:
            def progress(done: int) -> None:
                got_on()
                report(blob.digest, "downloading", done, blob.size)

            if self._content.has(blob.digest):
                return
            if blob.data is not None and len(blob.data) == blob.size:
                await self._threads.run(self._content.put, blob.digest, blob.data)
            else:
                await source.fetch(blob, progress)

        if not self._content.has(blob.digest):
            await self._downloads.do((source.origin, blob.digest), fetch)
        size = self._content.size(blob.digest)
        if size not in (None, blob.size):
            raise DataLoss(f"blob {blob.digest} has {size} bytes, the manifest says {blob.size}")


class _Job:
    """The layers of one image. `diff_ids`: one for each layer; None for an artifact, which only has blobs."""

    def __init__(
        self,
        installer: Installer,
        manifest: Manifest,
        diff_ids: tuple[str, ...] | None,
        source: Source,
        holder: str,
        report: LayerReport,
    ) -> None:
        self._installer = installer
        self._layers = installer._layers
        self._source, self._holder, self._report = source, holder, report
        self._blobs = manifest.layers or ()
        self._diff_ids = diff_ids
        self._chain = chain_ids(diff_ids or ())
        self._names: list[str] = []  # of unpacked layers, bottom first
        self._artifacts: list[Artifact] = []
        self._placed = 0  # number of layers unpacked, or kept as blobs, bottom first
        self._slots = asyncio.Semaphore(installer._parallel)
        self._moved = asyncio.Condition()

    async def run(self) -> tuple[tuple[str, ...], tuple[Artifact, ...]]:
        """Names of the layers, top first, and the artifacts."""
        for blob in self._blobs:
            if blob.media_type.endswith("+encrypted"):
                raise FailedPrecondition(f"layer {blob.digest} is encrypted, which is not supported")
        if self._diff_ids is None:
            await _all([self._fetch(blob) for blob in self._blobs])
            return (), tuple(Artifact(each.digest, each.media_type, each.size) for each in self._blobs)
        await _all([self._layer(index, diff_id) for index, diff_id in enumerate(self._diff_ids)])
        unknown = [each.digest for each in self._artifacts if each.media_type != WASM]
        if self._names and unknown:  # e.g. a layer in another format, whose files would be missing
            raise FailedPrecondition(
                f"layer {unknown[0]} is neither a tar archive nor a Wasm module, and others are archives"
            )
        return tuple(reversed(self._names)), tuple(self._artifacts)

    async def _fetch(self, blob: Descriptor) -> None:
        async with self._slots:
            await self._installer._need(blob, self._source, self._report)

    async def _layer(self, index: int, diff_id: str) -> None:
        blob, before = self._blobs[index], self._layers.find(diff_id, self._chain[index])
        if before is None:
            self._report(blob.digest, "waiting", 0, blob.size)
            await self._fetch(blob)
        async with self._moved:
            await self._moved.wait_for(lambda: self._placed == index)
        await self._place(index, diff_id)
        self._report(blob.digest, "done" if before is None else "exists", blob.size, blob.size)
        async with self._moved:
            self._placed += 1
            self._moved.notify_all()

    async def _place(self, index: int, diff_id: str) -> None:
        """Unpack the layer over those below it; a blob that is not an archive is kept unchanged."""
        blob, chain_id = self._blobs[index], self._chain[index]
        below = self._names[-1] if self._names else None
        while (name := self._layers.find(diff_id, chain_id, below)) is None:
            await self._fetch(blob)  # it existed before, but was collected since
            kind = await self._installer._threads.run(sniff, self._installer._content.path(blob.digest))
            if kind != "tar":
                self._artifacts.append(_as_artifact(blob, diff_id, kind))
                return
            await self._unpack(index, diff_id)
        self._names.append(name)
        self._layers.hold(self._holder, self._names)

    async def _unpack(self, index: int, diff_id: str) -> None:
        """Unpack once for all pulls with this layer and blob; those with other layers below check again."""
        blob, chain_id = self._blobs[index], self._chain[index]
        lower = tuple(reversed(self._names))
        self._report(blob.digest, "unpacking", 0, blob.size)

        async def unpack(_: Callable[[], None]) -> None:
            cancelled = threading.Event()
            path = self._installer._content.path(blob.digest)
            task = asyncio.ensure_future(
                self._installer._threads.run(self._layers.add, path, diff_id, chain_id, lower, cancelled)
            )
            try:
                record = await asyncio.shield(task)
            except asyncio.CancelledError:
                cancelled.set()
                await settled(task)
                if not task.cancelled() and task.exception() is None:
                    self._layers.adopt(task.result())
                raise
            self._layers.hold(self._holder, [*self._names, self._layers.adopt(record)])

        await self._installer._unpackings.do((blob.digest, diff_id), unpack)


async def _all(work: list[Coroutine[Any, Any, None]]) -> None:
    """Run in parallel; the first failure cancels the rest, waits for them, and is raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            await settled(task)


def _read_config(digest: str, manifest: Manifest, content: bytes) -> tuple[ConfigFile, bool]:
    """The config, and whether it lists the layers of this manifest, one to one.

    One that lists none covers none: runwasi builds images of Wasm modules like this. Raises DataLoss if the
    number of layers that are file systems differs from the config's list.
    """
    layers = manifest.layers or ()
    called_image = manifest.config.media_type in CONFIG_TYPES
    is_image = is_image_config(content)
    config = parse_config(content) if is_image or called_image else ConfigFile()
    listed = len(config.diff_ids)
    has_tars = any(is_tar_type(each.media_type) for each in layers)
    if listed != len(layers) and (listed or ((is_image or called_image) and has_tars)):
        raise DataLoss(
            f"manifest {digest} has {len(layers)} layers, but its config {manifest.config.digest}"
            f" lists {listed} (rootfs.diff_ids): the image is refused"
        )
    return config, is_image and listed == len(layers)


def _artifact_type(manifest: Manifest) -> str:
    return manifest.artifact_type or manifest.config.media_type or "unknown"


def _as_artifact(blob: Descriptor, diff_id: str, kind: str) -> Artifact:
    """A layer that is not a file system, listed in the image's config; typed by its content."""
    if is_tar_type(blob.media_type):
        raise DataLoss(f"layer {blob.digest} is no tar archive, though its type is {blob.media_type}")
    if blob.digest != diff_id:
        raise DataLoss(f"layer {blob.digest} is no tar archive, and the image's DiffID for it is {diff_id}")
    return Artifact(blob.digest, kind, blob.size)

"""From a manifest to an image that can run: blobs fetched, layers unpacked, a record to show.

Layers come down side by side and are unpacked in order, bottom first, each as soon as it
and those below it are there. Compressed layers are thrown away once unpacked: what this
node keeps of an image is its manifest, its config and its layer folders.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Literal, Protocol

from phantom_cri.errors import DataLoss, FailedPrecondition, ResourceExhausted
from phantom_cri.images.content import ContentStore
from phantom_cri.images.flights import Flights
from phantom_cri.images.layers import LayerRecord, LayerStore
from phantom_cri.images.limits import Limits
from phantom_cri.images.manifest import (
    CONFIG_TYPES,
    EMPTY_CONFIG,
    ConfigFile,
    Descriptor,
    Manifest,
    chain_ids,
    is_tar_layer,
    parse_config,
)
from phantom_cri.images.sources import Source
from phantom_cri.images.store import Artifact, ImageRecord
from phantom_cri.images.threads import Threads, settled

LayerState = Literal["waiting", "downloading", "unpacking", "done", "exists"]


class LayerReport(Protocol):
    """Called in the event loop as layers move: a blob's digest, and bytes done of how many."""

    def __call__(self, digest: str, state: LayerState, done: int, total: int) -> None: ...


class Installer:
    """Shared by all pulls and loads, so that what two of them need is fetched and unpacked once."""

    def __init__(
        self, content: ContentStore, layers: LayerStore, threads: Threads, limits: Limits, parallel: int
    ) -> None:
        self._content = content
        self._layers = layers
        self._threads = threads
        self._limits = limits
        self._parallel = parallel
        self._blob_flights: Flights[None] = Flights(owned=True)  # by the connections of one pull
        self._layer_flights: Flights[LayerRecord] = Flights()

    async def install(
        self,
        digest: str,
        content: bytes,
        manifest: Manifest,
        source: Source,
        holder: str,
        report: LayerReport,
    ) -> ImageRecord:
        """Everything of one platform's manifest, as a record that has no names yet.

        `holder` holds the layers when this returns.
        """
        descriptors = manifest.layers or ()
        if len(descriptors) > self._limits.layers:
            raise ResourceExhausted(f"image has {len(descriptors)} layers, {self._limits.layers} are allowed")
        if manifest.config.size > self._limits.config_bytes:
            raise ResourceExhausted(f"image config has {manifest.config.size} bytes")
        await self._threads.run(self._content.put, digest, content)
        await self._need(manifest.config, source, report)
        config_type = manifest.config.media_type
        config = ConfigFile()
        if config_type in CONFIG_TYPES:
            config = parse_config(await self._threads.run(self._content.read, manifest.config.digest))
        job = _Job(self, manifest, config, source, holder, report)
        names, artifacts = await job.run()
        return ImageRecord(
            id=digest if config_type == EMPTY_CONFIG else _image_id(manifest.config),
            size=len(content) + manifest.config.size + sum(each.size for each in descriptors),
            config=config.process(),
            layers=names,
            blobs=(digest, manifest.config.digest, *(each.digest for each in artifacts)),
            artifacts=artifacts,
            manifest=digest,
            config_digest=manifest.config.digest,
            config_type=config_type,
            architecture=config.architecture or "",
            os=config.os or "",
        )

    async def _need(self, blob: Descriptor, source: Source, report: LayerReport) -> None:
        """Have a blob in the content store, from the descriptor itself, another pull, or `source`."""

        async def fetch() -> None:
            if blob.data is not None and len(blob.data) == blob.size:
                await self._threads.run(self._content.put, blob.digest, blob.data)
            else:
                await source.fetch(blob, lambda done: report(blob.digest, "downloading", done, blob.size))

        if not self._content.has(blob.digest):
            await self._blob_flights.join(blob.digest, fetch)


class _Job:
    """The layers of one image."""

    def __init__(
        self,
        installer: Installer,
        manifest: Manifest,
        config: ConfigFile,
        source: Source,
        holder: str,
        report: LayerReport,
    ) -> None:
        self._installer = installer
        self._layers = installer._layers
        self._source, self._holder, self._report = source, holder, report
        self._tars, self._others = _sorted_out(manifest)
        self._diff_ids = _diff_ids(manifest, config, self._tars)
        self._chain = chain_ids(self._diff_ids)
        self._names: list[str] = []  # of what is unpacked, bottom first
        self._slots = asyncio.Semaphore(installer._parallel)
        self._unpacked = asyncio.Condition()

    async def run(self) -> tuple[tuple[str, ...], tuple[Artifact, ...]]:
        """Names of the layers, top first, and what is no file system."""
        work: list[Coroutine[Any, Any, None]] = [self._layer(index) for index in range(len(self._tars))]
        work += [self._fetch(blob) for blob in self._others]
        await _all(work)
        artifacts = tuple(Artifact(each.digest, each.media_type, each.size) for each in self._others)
        return tuple(reversed(self._names)), artifacts

    async def _fetch(self, blob: Descriptor) -> None:
        async with self._slots:
            await self._installer._need(blob, self._source, self._report)

    async def _layer(self, index: int) -> None:
        diff_id, chain_id = self._diff_ids[index], self._chain[index]
        blob, before = self._tars[index], self._layers.find(diff_id, chain_id)
        if before is None:
            self._report(blob.digest, "waiting", 0, blob.size)
            await self._fetch(blob)
        async with self._unpacked:
            await self._unpacked.wait_for(lambda: len(self._names) == index)
        name = self._layers.find(diff_id, chain_id)
        while name is None:
            await self._fetch(blob)  # was there at first sight, but collected since
            name = await self._unpack(index)
        self._names.append(name)
        self._layers.hold(self._holder, self._names)
        self._report(blob.digest, "done" if before is None else "exists", blob.size, blob.size)
        async with self._unpacked:
            self._unpacked.notify_all()

    async def _unpack(self, index: int) -> str | None:
        blob, diff_id, chain_id = self._tars[index], self._diff_ids[index], self._chain[index]
        lower = tuple(reversed(self._names))
        self._report(blob.digest, "unpacking", 0, blob.size)

        async def unpack() -> LayerRecord:
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
            return record

        await self._installer._layer_flights.join(diff_id, unpack)
        return self._layers.find(diff_id, chain_id)


async def _all(work: list[Coroutine[Any, Any, None]]) -> None:
    """Run side by side; the first failure cancels the rest, waits for them, and is raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            await settled(task)


def _image_id(config: Descriptor) -> str:
    if not config.digest.startswith("sha256:"):
        raise FailedPrecondition(
            f"image config digest {config.digest} is not sha256, so it cannot be an image id"
        )
    return config.digest


def _sorted_out(manifest: Manifest) -> tuple[list[Descriptor], list[Descriptor]]:
    """File systems, and everything else (Wasm modules, attestations)."""
    tars: list[Descriptor] = []
    others: list[Descriptor] = []
    for blob in manifest.layers or ():
        if blob.media_type.endswith("+encrypted"):
            raise FailedPrecondition(f"layer {blob.digest} is encrypted, which is not supported")
        is_tar = is_tar_layer(blob.media_type) and manifest.config.media_type in CONFIG_TYPES
        (tars if is_tar else others).append(blob)
    return tars, others


def _diff_ids(manifest: Manifest, config: ConfigFile, tars: list[Descriptor]) -> tuple[str, ...]:
    """The DiffID of each tar layer. A config may count Wasm layers too (runwasi) or leave them out."""
    known, every = config.diff_ids, manifest.layers or ()
    if len(known) == len(tars):
        return known
    if len(known) == len(every):
        return tuple(diff_id for diff_id, blob in zip(known, every, strict=True) if blob in tars)
    raise DataLoss(f"image has {len(tars)} layers but its config names {len(known)} DiffIDs")

"""The images' interface for the rest of the runtime.

Look-ups are in memory and never block; pulling, loading and removing are coroutines whose blocking parts run
in threads. State is only accessed in the event loop's thread.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import itertools
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any, ParamSpec, TypeVar

from phantom_cri.codec import Record, replace
from phantom_cri.errors import (
    DataLoss,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    Unavailable,
    kernel_error,
)
from phantom_cri.images import archive, auth, hosts, reference
from phantom_cri.images.content import ContentStore, digest_of
from phantom_cri.images.install import Installer, LayerReport, LayerState
from phantom_cri.images.layer_diff import write_layer
from phantom_cri.images.layers import LayerStore
from phantom_cri.images.limits import Limits
from phantom_cri.images.manifest import (
    Manifest,
    chain_ids,
    choose,
    json_object,
    parse_config,
    parse_document,
)
from phantom_cri.images.outages import Outages
from phantom_cri.images.reference import Reference
from phantom_cri.images.registry import Fetched, Registry
from phantom_cri.images.singleflight import SingleFlight
from phantom_cri.images.snapshots import Snapshot, SnapshotStore
from phantom_cri.images.sources import Remote, Source, Unpacked
from phantom_cri.images.store import ImageRecord, ImageStore
from phantom_cri.images.threads import Threads
from phantom_cri.images.trash import Trash
from phantom_cri.images.volumes import stack
from phantom_cri.images.written import WrittenLayers
from phantom_cri.model import AuthConfig, FilesystemUsage, Image, ImageMount, ImageSpec

_INDEX_DEPTH = 4
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})

P = ParamSpec("P")
T = TypeVar("T")


def _disk_errors(work: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Convert errors of a full or failing disk."""

    @functools.wraps(work)
    async def named(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await work(*args, **kwargs)
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise ResourceExhausted(f"no space for images: {error.strerror}") from None
            raise kernel_error("image store", error.errno or 0) from error

    return named


class ImageStatistics(Record, frozen=True):
    """`holds`: of images, containers and pulls on layers; `pulls`: running pulls and loads; `awaited`: images
    whose pull is being waited for; `writing`: blobs being fetched.
    """

    images: int
    layers: int
    holds: int
    pulls: int
    awaited: int
    writing: int


def _nobody(digest: str, state: LayerState, done: int, total: int) -> None:
    """Ignores the progress of a load."""


class ImageService:
    """Images, layers and container folders under `root`, which gets mode 0700.

    `registry_config_path`: hosts.toml tree(s), `:`-separated; None for defaults only.
    `pinned`: images that must not be removed, as shell patterns for canonical names.
    `resumable_for_s`: how long blobs and parts of a pull that was interrupted by a crash or a network
    failure are kept for the next attempt.
    """

    def __init__(
        self,
        root: Path,
        *,
        registry_config_path: Path | str | None = None,
        pinned: Sequence[str] = (),
        limits: Limits | None = None,
        max_parallel: int = 3,
        resumable_for_s: float = 3600.0,
    ) -> None:
        self._root = root
        self._config_path = registry_config_path
        self._limits = limits or Limits()
        self._resumable_for_s = resumable_for_s
        self._trash = Trash(root / "trash")
        self._content = ContentStore(root, self._trash)
        self._layers = LayerStore(root, self._trash, self._limits)
        self._images = ImageStore(root, pinned)
        self._snapshots = SnapshotStore(root, self._trash)
        self._written = WrittenLayers(lambda one: self._snapshots.locate(one, ()).upper, str(root))
        self._threads = Threads(max_parallel + 1)
        self._installer = Installer(self._content, self._layers, self._threads, self._limits, max_parallel)
        self._pulls: SingleFlight[str] = SingleFlight()
        self._outages = Outages()
        self._audiences: dict[tuple[Reference, AuthConfig | None], list[LayerReport]] = {}
        self._numbers = itertools.count()
        self._busy: dict[str, set[str]] = {}  # running pulls and loads, with the blobs they need
        self._spared: set[str] = set()  # blobs of images with records of a newer schema
        self._resolved: dict[str, int] = {}  # by tag: number of the pull that set it, while pulls are running
        self._changing = asyncio.Lock()

    # Start and end

    @_disk_errors
    async def start(self, in_use: Mapping[str, tuple[str, ...]], *, spare: bool = False) -> list[str]:
        """Load images, clean up after a crash, restore the holds of containers.

        `in_use`: container id → its layers as absolute folders; `spare`: keep everything, as there may be
        other containers. Returns the file names of image records that were removed as unusable (layers or
        blobs missing).
        """
        broken = await self._threads.run(self._open, None if spare else set(in_use))
        for container_id, folders in in_use.items():
            self._layers.hold(
                f"container:{container_id}", [self._layers.name_of(folder) for folder in folders]
            )
        for record in self._images.records():
            self._layers.hold(f"image:{record.id}", record.layers)
        if spare or self._images.has_others:
            self._layers.hold_all("a newer phantom-cri")
            self._spared = set(self._content.digests())
        await self._tidy(set())
        return broken

    def _open(self, container_ids: set[str] | None) -> list[str]:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._root.chmod(0o700)  # layers contain foreign set-uid files
        self._trash.open()
        self._content.open()
        self._layers.open()
        self._snapshots.open(container_ids)
        return self._images.open(self._is_whole)

    def _is_whole(self, record: ImageRecord) -> bool | None:
        """Whether an image is complete and matches its id, whichever release wrote the record.

        None: it has records of a newer schema.
        """
        if any(map(self._layers.is_of_newer, record.layers)):
            return None
        if not (all(map(self._layers.has, record.layers)) and all(map(self._content.has, record.blobs))):
            return False
        source = record.manifest if record.artifact_type else record.config_digest
        try:
            content = self._content.read(source, max(self._limits.config_bytes, self._limits.manifest_bytes))
            listed = () if record.artifact_type else parse_config(content).diff_ids
        except (DataLoss, ResourceExhausted):
            return False
        if record.artifact_type:
            return digest_of(content) == record.id
        blobs = [each.digest for each in record.artifacts]
        layers = list(map(self._layers.diff_id, reversed(record.layers)))
        is_same = layers == [one for one in listed if one not in blobs] and len(listed) == len(layers + blobs)
        return digest_of(content) == record.id and is_same

    async def close(self) -> None:
        """End the threads; pulls must have been cancelled."""
        await asyncio.to_thread(self._threads.close)
        await asyncio.to_thread(self._written.close)
        await asyncio.to_thread(self._snapshots.close)
        await asyncio.to_thread(self._trash.close)

    # Look-ups: in memory, never block

    def find(self, name: str) -> Image | None:
        """By id, reference, or unique prefix (3 or more hex digits) of an id."""
        image_id = self._images.find(name)
        return self._images.image(image_id) if image_id else None

    def list(self, name: str | None = None) -> tuple[Image, ...]:
        """All images, or the one with this name."""
        if not name:
            return self._images.images()
        found = self.find(name)
        return (found,) if found else ()

    def statistics(self) -> ImageStatistics:
        return ImageStatistics(
            images=len(self._images.images()),
            layers=len(self._layers),
            holds=self._layers.holds,
            pulls=len(self._busy),
            awaited=len(self._audiences),
            writing=self._content.writing,
        )

    def image(self, image_id: str) -> Image:
        """By its full id; raises NotFound."""
        self._record(image_id)
        return self._images.image(image_id)

    @property
    def layer_folders(self) -> tuple[Path, ...]:
        """All below which there are files of images; they may not be there yet."""
        return self._layers.folders

    def layers(self, image_id: str) -> tuple[str, ...]:
        """Folders of an image's layers, absolute, top first; raises NotFound. Empty for an artifact.

        An image may have a layer several times, but overlayfs accepts a folder only once (ELOOP): the topmost
        position is kept. This shows the same tree. Everything in a lower copy is at the same path in the
        upper one, where it is found first; and everything that a lower copy would hide (by a whiteout, an
        opaque folder, a file instead of a folder) is hidden by the upper one too. A layer whose content
        depends on those below has a folder for each chain, so equal folders are equal changes.
        """
        return tuple(map(self._layers.path, dict.fromkeys(self._record(image_id).layers)))

    def check_root(self, image_id: str) -> None:
        """Raises FailedPrecondition for an image without a root file system, NotFound."""
        record = self._record(image_id)
        if record.artifact_type:
            raise FailedPrecondition(
                f"{image_id} is an artifact of type {record.artifact_type!r} with no root file system"
            )
        if record.artifacts and not record.layers:
            kinds = ", ".join(sorted({each.media_type for each in record.artifacts}))
            raise FailedPrecondition(f"{image_id} has no root file system: it is made of {kinds}")

    def artifacts(self, image_id: str) -> tuple[tuple[str, Path], ...]:
        """(media type, file) of everything in the image that is not a file system, such as a Wasm module."""
        return tuple(
            (each.media_type, self._content.path(each.digest)) for each in self._record(image_id).artifacts
        )

    def info(self, image_id: str) -> dict[str, Any]:
        """For the verbose ImageStatus: `imageSpec` is the image's own config. Reads one small file."""
        record = self._record(image_id)
        config = self._content.read(record.config_digest, self._limits.config_bytes)
        try:
            spec = json_object(config, "image config")
        except DataLoss:
            spec = {}  # an artifact's config need not be JSON
        chain = () if record.artifact_type else chain_ids(parse_config(config).diff_ids)
        return {
            "chainID": chain[-1] if chain else "",
            "imageSpec": spec,
            "artifactType": record.artifact_type,
            "configMediaType": record.config_type,
            "manifestDigest": record.manifest,
            "layers": list(self.layers(image_id)),
            "artifacts": [{"mediaType": kind, "path": str(path)} for kind, path in self.artifacts(image_id)],
        }

    def filesystem_usage(self) -> FilesystemUsage:
        """Allocated bytes and inodes of layers and blobs, from counts kept up to date."""
        return FilesystemUsage(
            timestamp=time.time_ns(),
            mountpoint=str(self._root),
            used_bytes=self._layers.used_bytes + self._content.used_bytes,
            inodes_used=self._layers.inodes + self._content.count,
        )

    def wait_for_trash(self) -> None:
        """Wait until everything discarded so far is deleted. Blocks; for tests and shutdown."""
        self._trash.wait()

    # Containers

    def snapshot(self, container_id: str, image_id: str, mounted: Sequence[ImageMount] = ()) -> Snapshot:
        """Create a writable layer over the image, held until `drop_snapshot`. NotFound, AlreadyExists.

        `mounted`: further images of the container, from `mount`; they are held too.
        """
        layers = self.layers(image_id)
        snapshot = self._snapshots.create(container_id, layers)
        needed = (*layers, *(folder for each in mounted for folder in each.layers))
        self._layers.hold(f"container:{container_id}", map(self._layers.name_of, needed))
        return snapshot

    def mount(self, name: str, sub_path: str) -> ImageMount:
        """How to mount an image, or its content at `sub_path`, read-only.

        Raises NotFound, FailedPrecondition. The layers are only held after `snapshot`.
        """
        image_id = self._images.find(name)
        if image_id is None:
            raise NotFound(f"image {name!r} not found: pull it first")
        layers = self.layers(image_id)
        return ImageMount(image_id, stack(layers, sub_path, self._snapshots.empty), layers)

    def snapshot_of(self, container_id: str, layers: tuple[str, ...]) -> Snapshot:
        """The existing snapshot of a container, from its recorded layers."""
        return self._snapshots.locate(container_id, layers)

    def written(self, container_ids: Collection[str], patience_s: float) -> dict[str, FilesystemUsage]:
        """Sizes of containers' writable layers, as last counted; see `WrittenLayers`. Blocks."""
        return self._written.usage(container_ids, patience_s)

    def write_changes(self, container_id: str, layers: tuple[str, ...], target: str, stop: Event) -> None:
        """Write a container's changes to its image as an OCI layer to a new file `target`. Blocks.

        Raises as `layer_diff.write_layer`: InterruptedError after `stop` is set.
        """
        write_layer(self._snapshots.locate(container_id, layers).upper, target, stop)

    def drop_snapshot(self, container_id: str) -> None:
        """Idempotent; one rename, deleted in the background. The overlay must be unmounted."""
        self._snapshots.remove(container_id)
        self._written.forget(container_id)
        holder = f"container:{container_id}"
        held = self._layers.held(holder)
        self._layers.release(holder)
        if any(self._layers.is_free(name) for name in held):
            self._layers.collect()

    # Pull, load, remove

    async def pull(
        self, spec: ImageSpec, credentials: AuthConfig | None = None, progress: LayerReport | None = None
    ) -> str:
        """Pull the image that `spec.image` names; returns its id when it can be used.

        Concurrent pulls of the same image with the same credentials are done once.
        Raises InvalidArgument, NotFound, Unauthenticated, PermissionDenied, Unavailable,
        DataLoss, ResourceExhausted, FailedPrecondition.
        """
        name = reference.parse(spec.image)
        key = (name, credentials)
        audience = self._audiences.setdefault(key, [])

        def tell(digest: str, state: LayerState, done: int, total: int) -> None:
            for each in audience:
                each(digest, state, done, total)

        if progress:
            audience.append(progress)
        try:
            return await self._pulls.join(key, lambda: self._pull(name, credentials, tell))
        finally:
            if progress:
                audience.remove(progress)
            if not audience and self._audiences.get(key) is audience:
                del self._audiences[key]

    @_disk_errors
    async def _pull(self, name: Reference, credentials: AuthConfig | None, report: LayerReport) -> str:
        endpoints = await self._threads.run(hosts.endpoints, name.domain, self._config_path)
        keys = {each.url: auth.credentials_for(credentials, name.domain, each) for each in endpoints}
        origin = (name.domain, endpoints, credentials)
        async with Registry(name, endpoints, keys, self._limits, self._outages) as registry:
            source = Remote(
                registry,
                self._content,
                self._threads,
                origin,
                self._images.has_name,
                self._limits.manifest_bytes,
            )
            target = await source.resolve(name)
            digests = (name.with_digest(target.digest),)
            tags = () if name.digest else (name.canonical,)
            return await self._bring_in(target, source, tags, digests, report)

    @_disk_errors
    async def load(self, path: Path | str, progress: LayerReport | None = None) -> tuple[str, ...]:
        """Load an OCI archive or `docker save` tar, compressed or not; returns the ids of its images.

        Raises NotFound, InvalidArgument or DataLoss naming the problem of the file.
        """
        report = progress or _nobody
        folder = self._layers.staging(f"load-{next(self._numbers)}")
        try:
            images, files = await self._threads.run(archive.read, Path(path), folder, self._limits)
            source = Unpacked(files, self._content, self._threads, self._limits.manifest_bytes)
            ids = [
                await self._bring_in(each.fetched, source, each.tags, each.digests, report) for each in images
            ]
            return tuple(dict.fromkeys(ids))
        finally:
            self._trash.discard(str(folder))

    @_disk_errors
    async def remove(self, name: str) -> None:
        """Remove an image with all its names; an unknown name is ignored.

        Its layers stay while other images or containers use them.
        """
        async with self._changing:
            image_id = self._images.find(name)
            record = self._images.hide(image_id) if image_id else None
            if record is None:
                return
            await self._threads.run(self._images.erase, record.id)
            self._layers.release(f"image:{record.id}")
        await self._tidy(set(record.blobs))

    async def _bring_in(
        self,
        target: Fetched,
        source: Source,
        tags: tuple[str, ...],
        digests: tuple[str, ...],
        report: LayerReport,
    ) -> str:
        """Install the image of a manifest or index `target`, and set its names. On failure nothing is left,
        except downloads interrupted by the network or the caller, which can be resumed.
        """
        number = next(self._numbers)
        holder = f"pull:{number}"
        needed = self._busy[holder] = {target.digest}
        resumable = False
        try:
            fetched, manifest = await self._platform(target, source)
            needed |= {
                fetched.digest,
                manifest.config.digest,
                *(each.digest for each in manifest.layers or ()),
            }
            record = await self._installer.install(
                fetched.digest, fetched.content, manifest, source, holder, report
            )
            if target.digest != fetched.digest:
                await self._threads.run(self._content.put, target.digest, target.content)
                record = replace(record, blobs=(*record.blobs, target.digest))
            await self._publish(record, tags, digests, number)
            return record.id
        except (Unavailable, asyncio.CancelledError):
            resumable = True
            raise
        finally:
            self._layers.release(holder)
            del self._busy[holder]
            if not self._busy:
                self._resolved.clear()
            await self._tidy(set() if resumable else needed)

    async def _platform(self, target: Fetched, source: Source) -> tuple[Fetched, Manifest]:
        """The manifest for this machine, also from nested indexes."""
        fetched = target
        for _ in range(_INDEX_DEPTH):
            document = parse_document(fetched.content, fetched.media_type)
            if isinstance(document, Manifest):
                return fetched, document
            chosen = choose(document)
            fetched = await source.manifest(chosen)
            if len(fetched.content) != chosen.size:
                raise DataLoss(
                    f"index {target.digest}: manifest {chosen.digest} has {len(fetched.content)} bytes,"
                    f" the index says {chosen.size}"
                )
        raise DataLoss(f"index {target.digest}: nested more than {_INDEX_DEPTH} deep")

    async def _publish(
        self, record: ImageRecord, tags: tuple[str, ...], digests: tuple[str, ...], number: int
    ) -> None:
        """Set a record's names, except tags set by a pull that resolved them later than this one."""
        async with self._changing:
            tags = tuple(tag for tag in tags if self._resolved.get(tag, -1) < number)
            old = self._images.record(record.id)
            before = old or ImageRecord(record.id)
            record = replace(
                record,
                tags=tuple(dict.fromkeys((*before.tags, *tags))),
                digests=tuple(dict.fromkeys((*before.digests, *digests))),
                blobs=tuple(dict.fromkeys((*record.blobs, *before.blobs))),
                changed_at=self._images.next_change(),
                unknown=before.unknown,
            )
            try:
                await self._threads.run(self._images.save, record)
            except BaseException:  # also when cancelled: an image must not appear without a successful call
                await asyncio.shield(self._threads.run(self._restore, record.id, old))
                raise
            self._resolved.update(dict.fromkeys(tags, number))
            self._layers.hold(f"image:{record.id}", record.layers)
            for loser in self._images.show(record):
                await self._threads.run(self._images.save, loser)

    def _restore(self, image_id: str, old: ImageRecord | None) -> None:
        if old is None:
            self._images.erase(image_id)
        else:
            self._images.save(old)

    async def _tidy(self, blobs: set[str]) -> None:
        """Delete layers without holds, unused ones of `blobs`, and old parts of downloads."""
        self._layers.collect()
        self._delete(blobs)
        await self._threads.run(self._content.discard_parts, blobs - self._needed())
        self._delete(await self._threads.run(self._content.stale, self._needed(), self._resumable_for_s))

    def _delete(self, blobs: Iterable[str]) -> None:
        """Runs in the event loop without an await, so that pulls started later see a consistent state."""
        for digest in set(blobs) - self._needed():
            self._content.delete(digest)

    def _needed(self) -> set[str]:
        kept = {digest for record in self._images.records() for digest in record.blobs}
        return kept.union(self._spared, *self._busy.values())

    def _record(self, image_id: str) -> ImageRecord:
        record = self._images.record(image_id)
        if record is None:
            raise NotFound(f"image {image_id}")
        return record

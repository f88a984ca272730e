"""Image archives for `load`: an OCI layout in a tar, the output of `docker save`, or both in one.

The tar may be compressed. Members are written to a staging folder under names of our own, so that names in
the archive are never used as paths.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from phantom_cri.codec import Document, from_json, to_json
from phantom_cri.errors import DataLoss, InvalidArgument, NotFound, ResourceExhausted
from phantom_cri.images import layertar, reference
from phantom_cri.images.content import digest_of, matches
from phantom_cri.images.layertar import LayerStream, TarReader
from phantom_cri.images.limits import Limits
from phantom_cri.images.manifest import DECODE_ERRORS, Index
from phantom_cri.images.registry import Fetched

_SHA512 = "blobs/sha512/"
_REF_NAME = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


class _Saved(Document, frozen=True, rename="pascal"):
    """One entry of docker save's manifest.json."""

    config: str
    layers: tuple[str, ...] | None = None
    repo_tags: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ArchivedImage:
    fetched: Fetched
    tags: tuple[str, ...]
    digests: tuple[str, ...]


@dataclass
class _Members:
    """The archive's members: staged files by name, their digests and sizes, and symbolic links."""

    files: dict[str, Path] = field(default_factory=dict)
    digests: dict[str, tuple[str, int]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def find(self, name: str) -> str | None:
        """The member for `name`, following the links that old `docker save` uses for repeated layers."""
        for _ in range(8):
            if name in self.files:
                return name
            if name not in self.links:
                return None
            name = posixpath.normpath(posixpath.join(posixpath.dirname(name), self.links[name]))
        return None

    def text(self, name: str, limit: int) -> bytes | None:
        found = self.find(name)
        if found is None:
            return None
        if self.digests[found][1] > limit:
            raise ResourceExhausted(f"archive: {name} is larger than {limit} bytes")
        return self.files[found].read_bytes()

    def by_digest(self) -> dict[str, Path]:
        """By computed digests, and by digests in names, which readers have to verify."""
        claimed = {
            f"sha512:{name[13:]}": path for name, path in self.files.items() if name.startswith(_SHA512)
        }
        return claimed | {digest: self.files[name] for name, (digest, _) in self.digests.items()}


def read(path: Path, folder: Path, limits: Limits) -> tuple[list[ArchivedImage], dict[str, Path]]:
    """The images in the archive at `path`, and all its files by digest, staged in the new `folder`.

    Raises NotFound for a missing file, InvalidArgument for one that is not an image archive,
    DataLoss for a damaged one.
    """
    folder.mkdir(mode=0o700)
    try:
        source = path.open("rb", buffering=0)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(f"archive {path}: {error.strerror}") from None
    with source:
        members = _stage(LayerStream(source, limits.layer_bytes), folder, limits)
    index = members.text("index.json", limits.manifest_bytes)
    saved = members.text("manifest.json", limits.manifest_bytes)
    try:
        if index is not None:
            images = list(_from_layout(from_json(index, Index), members, limits))
        elif saved is not None:
            images = [_from_save(each, members) for each in from_json(saved, tuple[_Saved, ...])]
        else:
            raise InvalidArgument(
                f"archive {path}: neither index.json nor manifest.json, so no image archive"
            )
    except DECODE_ERRORS as error:
        raise DataLoss(f"archive {path}: {error}") from None
    if not images:
        raise InvalidArgument(f"archive {path}: no image in it")
    return images, members.by_digest()


def _stage(stream: LayerStream, folder: Path, limits: Limits) -> _Members:
    members = _Members()
    reader = TarReader(stream)
    for number, entry in enumerate(reader):
        if number > limits.layer_entries:
            raise ResourceExhausted(f"archive has more than {limits.layer_entries} entries")
        name = posixpath.normpath(entry.name.lstrip("/"))
        if entry.kind in (layertar.SYMLINK, layertar.HARDLINK):
            base = posixpath.dirname(name) if entry.kind == layertar.HARDLINK else ""
            members.links[name] = posixpath.relpath(entry.link, base or ".") if base else entry.link
        elif entry.kind == layertar.REGULAR:
            staged = folder / str(number)
            members.digests[name] = _write(reader, staged), entry.size
            members.files[name] = staged
    return members


def _write(reader: TarReader, staged: Path) -> str:
    digest = hashlib.sha256()
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb", buffering=0) as file:

        def keep(part: memoryview) -> None:
            digest.update(part)
            while part:
                part = part[file.write(part) or 0 :]

        reader.copy(keep)
    return f"sha256:{digest.hexdigest()}"


def _from_layout(index: Index, members: _Members, limits: Limits) -> Iterator[ArchivedImage]:
    for descriptor in index.manifests or ():
        content = members.text(f"blobs/{descriptor.digest.replace(':', '/')}", limits.manifest_bytes)
        if content is None or not matches(descriptor.digest, content):
            raise DataLoss(f"archive: manifest {descriptor.digest} is missing or damaged")
        notes = descriptor.annotations or {}
        name = notes.get(_CONTAINERD_NAME) or notes.get(_REF_NAME, "")
        fetched = Fetched(descriptor.digest, descriptor.media_type, content)
        # A single word is a tag without a repository: the image then only has its id.
        if "/" not in name and ":" not in name:
            yield ArchivedImage(fetched, (), ())
            continue
        parsed = reference.parse(name)
        tags = () if parsed.digest else (parsed.canonical,)
        yield ArchivedImage(fetched, tags, (parsed.with_digest(descriptor.digest),))


def _from_save(saved: _Saved, members: _Members) -> ArchivedImage:
    """docker save has no manifest, so one is created; its digest is only valid on this node."""
    manifest = to_json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": _descriptor(saved.config, _CONFIG_TYPE, members),
            "layers": [_descriptor(name, _LAYER_TYPE, members) for name in saved.layers or ()],
        }
    )
    tags = tuple(reference.parse(name).canonical for name in saved.repo_tags or ())
    return ArchivedImage(Fetched(digest_of(manifest), _MANIFEST_TYPE, manifest), tags, ())


def _descriptor(name: str, media_type: str, members: _Members) -> dict[str, object]:
    found = members.find(name)
    if found is None:
        raise DataLoss(f"archive: {name!r} is named in manifest.json but missing")
    digest, size = members.digests[found]
    return {"mediaType": media_type, "digest": digest, "size": size}

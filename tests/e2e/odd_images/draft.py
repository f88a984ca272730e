"""An image in the making: sane until a case changes it, then published on a registry."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.image import ARCHITECTURE, busybox_layer, digest_of, program_layer
from harness.image import LayerBuilder as Layer
from tests.e2e.images.spec_registry import SpecRegistry

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
GZIP_LAYER = f"{OCI}.layer.v1.tar+gzip"
TAR_LAYER = f"{OCI}.layer.v1.tar"
ZSTD_LAYER = f"{OCI}.layer.v1.tar+zstd"
CONFIG = f"{OCI}.config.v1+json"
MANIFEST = f"{OCI}.manifest.v1+json"
INDEX = f"{OCI}.index.v1+json"
DOCKER_CONFIG = f"{DOCKER}.container.image.v1+json"
DOCKER_MANIFEST = f"{DOCKER}.distribution.manifest.v2+json"
DOCKER_LIST = f"{DOCKER}.distribution.manifest.list.v2+json"
DOCKER_LAYER = f"{DOCKER}.image.rootfs.diff.tar.gzip"
OCTETS = "application/octet-stream"

Document = dict[str, Any]


@dataclass
class Blob:
    """A layer as it is sent, with its DiffID and what else its descriptor says."""

    content: bytes
    diff_id: str
    media_type: str = GZIP_LAYER
    more: Document = field(default_factory=dict)

    @classmethod
    def packed(cls, tar: bytes) -> Blob:
        return cls(gzip.compress(tar, compresslevel=1, mtime=0), digest_of(tar))


@functools.cache
def base_layer() -> Blob:
    """Busybox."""
    return Blob.packed(busybox_layer())


@functools.cache
def look_layer() -> Blob:
    """/look, which says what there is in a tree (look.c)."""
    return Blob.packed(program_layer("look", (Path(__file__).parent / "look.c").read_text()))


@dataclass
class Draft:
    """Everything that a case may change before it is published.

    `file` is the image config, its DiffIDs are those of the layers unless `diff_ids` says otherwise.
    """

    name: str
    layers: list[Blob]
    file: Document
    diff_ids: Callable[[list[str]], Any] = list
    config_type: str = CONFIG
    encode_config: Callable[[Document], bytes] = lambda file: json.dumps(file).encode()
    edit_manifest: list[Callable[[Document], object]] = field(default_factory=list)
    encode_manifest: Callable[[Document], bytes] = lambda manifest: json.dumps(manifest).encode()
    served_as: str = MANIFEST
    wrap: Callable[[SpecRegistry, Document], Document] | None = None
    index_served_as: str = INDEX
    ask: str = "{host}/{name}:latest"

    @classmethod
    def sane(cls, name: str) -> Draft:
        process = {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/bin:/bin:/"]}
        # The author makes each config one of its own: no two images have the same id by chance.
        file = {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "author": name,
            "config": process,
            "rootfs": {"type": "layers"},
        }
        return cls(name, [base_layer(), look_layer()], file)

    def publish(self, registry: SpecRegistry) -> str:
        """Puts it on `registry`; answers what to pull."""
        if isinstance(rootfs := self.file.get("rootfs"), dict) and "diff_ids" not in rootfs:
            rootfs["diff_ids"] = self.diff_ids([layer.diff_id for layer in self.layers])
        manifest: Document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": put(registry, self.encode_config(self.file), self.config_type),
            "layers": [
                {**put(registry, layer.content, layer.media_type), **layer.more} for layer in self.layers
            ],
        }
        for edit in self.edit_manifest:
            edit(manifest)
        top = put(registry, self.encode_manifest(manifest), manifest.get("mediaType") or MANIFEST)
        registry.types[top["digest"]] = self.served_as
        if self.wrap:
            index = self.wrap(registry, top)
            top = put(registry, json.dumps(index).encode(), INDEX)
            registry.types[top["digest"]] = self.index_served_as
        registry.tags[f"{self.name}:latest"] = top["digest"]
        return self.ask.format(host=registry.host, name=self.name, digest=top["digest"])


Change = Callable[[Draft], object]


def put(registry: SpecRegistry, content: bytes, media_type: str) -> Document:
    """The descriptor of `content`, which `registry` has from now on."""
    digest = digest_of(content)
    registry.blobs[digest] = content
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def drafted(name: str, changes: Sequence[Change]) -> Draft:
    draft = Draft.sane(name)
    for change in changes:
        change(draft)
    return draft


# Changes


def layers(*tars: bytes) -> Change:
    """Layers above the base, lowest first."""
    return lambda draft: draft.layers.extend(Blob.packed(tar) for tar in tars)


def sent(pack: Callable[[bytes], bytes], media_type: str = GZIP_LAYER, tar: bytes | None = None) -> Change:
    """A layer that is sent as `pack` makes it; `tar`, or else a file /f and one that no other case has."""

    def change(draft: Draft) -> None:
        content = Layer().file("f", "f").file("of", draft.name).finish() if tar is None else tar
        draft.layers.append(Blob(pack(content), digest_of(content), media_type))

    return change


def own_layer(draft: Draft) -> None:
    """A layer that no other case has: what a runtime has of one is not asked for again."""
    tar = Layer().directory("d").file("d/a", "a").file("d/of", draft.name).finish()
    draft.layers.append(Blob.packed(tar))


def last_layer(**more: Any) -> Change:
    """The topmost layer's descriptor says what `more` does."""

    def change(draft: Draft) -> None:
        draft.layers[-1].more = more

    return change


def without_base(draft: Draft) -> None:
    """No busybox, only /look."""
    del draft.layers[0]


def each_layer(media_type: str, **more: Any) -> Change:
    """Every layer's descriptor has `media_type`, and what `more` says."""

    def change(draft: Draft) -> None:
        draft.layers = [Blob(each.content, each.diff_id, media_type, more) for each in draft.layers]

    return change


def config(**keys: Any) -> Change:
    """Of the part that says how to run it: Env, Cmd, User …"""
    return lambda draft: draft.file["config"].update(keys)


def config_file(**keys: Any) -> Change:
    """Of the whole image config; a key that is ... is left out."""

    def change(draft: Draft) -> None:
        draft.file = {key: value for key, value in {**draft.file, **keys}.items() if value is not ...}

    return change


def having(**fields: Any) -> Change:
    """Sets fields of the draft."""

    def change(draft: Draft) -> None:
        for name, value in fields.items():
            assert hasattr(draft, name), name
            setattr(draft, name, value)

    return change


def manifest(edit: Callable[[Document], object]) -> Change:
    """Edits the manifest right before it is sent."""
    return lambda draft: draft.edit_manifest.append(edit)


def index(*entries: Callable[[SpecRegistry, Document], Document], **keys: Any) -> Change:
    """An index of `entries`, each made of the registry and the manifest's descriptor."""

    def wrap(registry: SpecRegistry, top: Document) -> Document:
        made = [entry(registry, top) for entry in entries]
        return {"schemaVersion": 2, "mediaType": INDEX, "manifests": made, **keys}

    return having(wrap=wrap)

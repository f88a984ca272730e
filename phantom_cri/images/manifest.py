"""The JSON of OCI and Docker images: indexes, manifests, configs; and selection of a platform.

Source: opencontainers image-spec; Docker's schema 2 differs only in media types. `null` is read as by Go's
decoder: an absent field, an empty list element, an empty value.

The kind of a document is determined by its content, which its digest covers. Media types from manifests and
registries are not trusted: they can only cause a document to be refused.
"""

from __future__ import annotations

import hashlib
import json
import platform as host_platform
from typing import Any

from phantom_cri.codec import DecodeError, Document, convert, from_json
from phantom_cri.errors import DataLoss, FailedPrecondition, NotFound
from phantom_cri.images.reference import is_digest
from phantom_cri.model import ImageConfig

DECODE_ERRORS: tuple[type[Exception], ...] = (DecodeError, UnicodeDecodeError, RecursionError)

INDEX_TYPES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
MANIFEST_TYPES = frozenset(
    {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    }
)
CONFIG_TYPES = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    }
)
SCHEMA1_PREFIX = "application/vnd.docker.distribution.manifest.v1"
ACCEPT = ", ".join([*sorted(MANIFEST_TYPES), *sorted(INDEX_TYPES), "*/*"])

_TAR_LAYER_PREFIXES = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)
_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "i386": "386", "i686": "386", "aarch64": "arm64"}
_WASM_SYSTEMS = frozenset({"wasi", "wasip1", "wasip2"})


class Platform(Document, frozen=True, rename={"os_features": "os.features"}):
    architecture: str = ""
    os: str = ""
    variant: str | None = None
    os_features: tuple[str, ...] | None = None


class Descriptor(Document, frozen=True, rename="camel"):
    digest: str
    size: int
    media_type: str = ""
    urls: tuple[str, ...] | None = None
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    data: bytes | None = None


class Manifest(Document, frozen=True, rename="camel"):
    config: Descriptor
    layers: tuple[Descriptor, ...] | None = None
    media_type: str | None = None
    artifact_type: str | None = None


class Index(Document, frozen=True, rename="camel"):
    manifests: tuple[Descriptor, ...] | None = None
    media_type: str | None = None


class _Process(Document, frozen=True):
    """`config` of an image config, keys in lower case (see `parse_config`)."""

    user: str | None = None
    env: tuple[str | None, ...] | None = None
    entrypoint: tuple[str | None, ...] | None = None
    cmd: tuple[str | None, ...] | None = None
    workingdir: str | None = None
    volumes: dict[str, dict[str, Any] | None] | None = None
    stopsignal: str | None = None
    labels: dict[str, str | None] | None = None


class Rootfs(Document, frozen=True):
    diff_ids: tuple[str | None, ...] | None = None


class ConfigFile(Document, frozen=True):
    """The used fields of an image config blob."""

    architecture: str | None = None
    os: str | None = None
    variant: str | None = None
    created: str | None = None
    config: _Process | None = None
    rootfs: Rootfs | None = None

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """Digests of the uncompressed layers, bottom first."""
        return _texts(self.rootfs.diff_ids if self.rootfs else None)

    def process(self) -> ImageConfig:
        found = self.config or _Process()
        return ImageConfig(
            user=found.user or "",
            env=_texts(found.env),
            entrypoint=_texts(found.entrypoint),
            cmd=_texts(found.cmd),
            working_dir=found.workingdir or "",
            volumes=tuple(found.volumes or ()),
            stop_signal=found.stopsignal or "",
            labels={key: value or "" for key, value in (found.labels or {}).items()},
        )


def parse_document(content: bytes, media_type: str = "") -> Manifest | Index:
    """Decode a manifest or an index. `media_type`: from the descriptor or the registry.

    Raises DataLoss for JSON that is neither, or is ambiguous: it has fields of both, or its media type is
    that of the other kind. FailedPrecondition for Docker schema 1.
    """
    document = json_object(content, "manifest")
    if document.get("schemaVersion") == 1 or media_type.startswith(SCHEMA1_PREFIX):
        raise FailedPrecondition("manifest is Docker schema 1, which is no longer accepted: push it again")
    try:
        document = _without_nulls(document)
        kind = _kind(document, media_type)
        parsed = convert(document, kind)
    except DECODE_ERRORS as error:
        raise DataLoss(f"manifest: {error}") from None
    _check_descriptors(parsed)
    return parsed


def _kind(document: dict[str, Any], sent_as: str) -> type[Manifest] | type[Index]:
    """The kind of the document by its keys; for ambiguity these are compared case-insensitively, as in Go."""
    keys = [key.lower() for key in document]
    for key in ("manifests", "layers", "config", "mediatype"):
        if keys.count(key) > 1:
            raise DataLoss(f"manifest has `{key}` in several spellings: its meaning is ambiguous")
    is_manifest = "layers" in keys or "config" in keys
    if "manifests" in keys and is_manifest:
        raise DataLoss("manifest has both `manifests` and `layers` or `config`: its meaning is ambiguous")
    named = str(document.get("mediaType", ""))
    is_index = not is_manifest and ("manifests" in keys or not INDEX_TYPES.isdisjoint((named, sent_as)))
    others, what = (MANIFEST_TYPES, "an index") if is_index else (INDEX_TYPES, "a manifest")
    if named in others or sent_as in others:
        raise DataLoss(f"manifest says mediaType {named!r} and was sent as {sent_as!r}, but is {what}")
    return Index if is_index else Manifest


def is_image_config(content: bytes) -> bool:
    """Whether a blob lists its layers, so that its digest covers the whole image."""
    try:
        document = _fold(json_object(content, "image config"))
    except DataLoss:
        return False
    rootfs = document.get("rootfs")
    rootfs = _fold(rootfs) if isinstance(rootfs, dict) else {}
    return rootfs.get("type") == "layers" or bool(rootfs.get("diff_ids"))


def parse_config(content: bytes) -> ConfigFile:
    """Decode an image config, with case-insensitive keys (allowed by Go's decoder, and used in real images).

    Raises DataLoss that names the field.
    """
    document = _fold(json_object(content, "image config"))
    for key in ("config", "rootfs"):
        if isinstance(document.get(key), dict):
            document[key] = _fold(document[key])
    try:
        config = convert(document, ConfigFile)
    except DECODE_ERRORS as error:
        raise DataLoss(f"image config: {error}") from None
    for number, diff_id in enumerate(config.diff_ids):
        if not is_digest(diff_id):
            raise DataLoss(f"image config: rootfs.diff_ids[{number}] {diff_id[:200]!r} is no digest")
    return config


def is_tar_type(media_type: str) -> bool:
    """Whether the media type is that of a file system layer; its content may differ."""
    return media_type.startswith(_TAR_LAYER_PREFIXES)


def chain_ids(diff_ids: tuple[str, ...]) -> tuple[str, ...]:
    """ChainID of every layer, bottom first: it names a layer *and* all those below it."""
    chain: list[str] = []
    for diff_id in diff_ids:
        above = f"{chain[-1]} {diff_id}" if chain else ""
        chain.append(f"sha256:{hashlib.sha256(above.encode()).hexdigest()}" if above else diff_id)
    return tuple(chain)


def choose(index: Index, machine: str = "") -> Descriptor:
    """The entry for this machine: its architecture, then one that it can run, then Wasm, then one without.

    Raises NotFound with containerd's message.
    """
    wanted = _preferences(machine or host_platform.machine())
    best: tuple[int, Descriptor] | None = None
    for entry in index.manifests or ():
        rank = _rank(entry, wanted)
        if rank is not None and (best is None or rank < best[0]):
            best = (rank, entry)
    if best is None:
        raise NotFound(f"no match for platform in manifest: linux/{wanted[0][0]} is not offered")
    return best[1]


def _preferences(machine: str) -> list[tuple[str, str]]:
    """(architecture, variant) that this machine runs, best first."""
    name = _ARCHITECTURES.get(machine, machine)
    if name == "amd64":
        return [("amd64", v) for v in (*_amd64_levels(), "")] + [("386", "")]
    if name == "arm64":
        return [("arm64", "v8"), ("arm64", ""), ("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")]
    if name.startswith("arm"):
        return [("arm", v) for v in ("v7", "v6", "v5")]
    return [(name, "")]


def _amd64_levels() -> tuple[str, ...]:
    """x86-64-v3 and v4 need these flags (x86-64 psABI); every server of the last decade has v2."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as cpuinfo:
            flags = next(
                (set(line.split(":")[1].split()) for line in cpuinfo if line.startswith("flags")), set()
            )
    except OSError:
        flags = set()
    v2 = {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"} <= flags
    v3 = v2 and {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"} <= flags
    v4 = v3 and {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"} <= flags
    return ("v4",) * v4 + ("v3",) * v3 + ("v2",) * v2 + ("v1",)


def _rank(entry: Descriptor, wanted: list[tuple[str, str]]) -> int | None:
    if entry.media_type and entry.media_type not in INDEX_TYPES | MANIFEST_TYPES:
        return None
    platform = entry.platform
    if platform is None:
        return len(wanted) + 1
    if platform.architecture == "wasm" and platform.os in _WASM_SYSTEMS:
        return len(wanted)
    architecture, variant = _normalised(platform)
    if platform.os.lower() not in ("linux", "") or (architecture, variant) not in wanted:
        return None
    if platform.os_features:
        return None  # all of them are required, and Linux has no such features
    return wanted.index((architecture, variant))


def _normalised(platform: Platform) -> tuple[str, str]:
    architecture, variant = platform.architecture.lower(), (platform.variant or "").lower()
    if architecture in ("armhf", "armel"):
        return "arm", {"armhf": "v7", "armel": "v6"}[architecture]
    if architecture == "arm" and not variant:
        variant = "v7"
    return _ARCHITECTURES.get(architecture, architecture), variant


def _check_descriptors(document: Manifest | Index) -> None:
    inner = (
        (document.config, *(document.layers or ())) if isinstance(document, Manifest) else document.manifests
    )
    for descriptor in inner or ():
        if not is_digest(descriptor.digest):
            raise DataLoss(f"manifest: digest {descriptor.digest[:200]!r} is not sha256 or sha512")
        if not 0 <= descriptor.size < 1 << 63:  # int64 in Go and in CRI
            raise DataLoss(f"manifest: size {descriptor.size} of {descriptor.digest} is out of range")


def json_object(content: bytes, what: str) -> dict[str, Any]:
    """Decode a JSON object as Go does. Raises DataLoss naming `what`."""
    try:
        return from_json(content, dict[str, Any])
    except DECODE_ERRORS:
        pass
    try:
        return from_json(_readable(content), dict[str, Any])
    except (DecodeError, ValueError, RecursionError) as error:
        raise DataLoss(f"{what} is not a JSON object: {error}") from None


def _readable(content: bytes) -> bytes:
    """Replace invalid Unicode by U+FFFD, as Go does: bytes, and escapes of unpaired surrogates."""
    text = json.dumps(json.loads(content.decode("utf-8", "replace")), ensure_ascii=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _fold(document: dict[str, Any]) -> dict[str, Any]:
    return {key.lower(): value for key, value in document.items()}


def _without_nulls(value: Any) -> Any:
    """Remove fields that are null from every object; a null in a list stays."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _texts(values: tuple[str | None, ...] | None) -> tuple[str, ...]:
    return tuple(value or "" for value in values or ())

"""No image, pull, registry, archive or credential changes what another runs, or keeps it from coming."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.image import LayerBuilder, digest_of
from phantom_cri.codec import from_json, replace, to_json
from phantom_cri.errors import DataLoss, FailedPrecondition, NotFound, PhantomError, RegistryUnavailable
from phantom_cri.images import ImageService, Limits, rootfs
from phantom_cri.images.store import ImageRecord
from phantom_cri.model import AuthConfig, ImageSpec
from tests.e2e.images.conftest import Start
from tests.e2e.images.manifests import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    OCTETS,
    TAR,
    WASM,
    config_of,
    descriptor,
    manifest_of,
    serve,
)
from tests.e2e.images.spec_registry import PASSWORD, TOKEN, USER, SpecRegistry

BASE = LayerBuilder().directory("etc").file("etc/base", "base").file("bin", "harmless").finish()
TOP = LayerBuilder().file("bin", "guard").file("top", os.urandom(3_000_000)).finish()


def image(registry: SpecRegistry, name: str, layers: Sequence[bytes] = (BASE, TOP), **more: Any) -> str:
    config = config_of(layers, **more)
    return serve(registry, name, manifest_of(config, layers), [config, *layers])


def content(service: ImageService, name: str, path: str) -> bytes | None:
    found = service.find(name)
    assert found is not None, name
    return rootfs.read(service.layers(found.id), path)


async def refused(pull: Any) -> str:
    with pytest.raises(PhantomError) as caught:
        await pull
    return f"{type(caught.value).__name__}: {caught.value}"


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


VICTIM = config_of((BASE, TOP))
STRANGERS = {  # manifests with the victim's config that say something else of its layers
    "top of another type": manifest_of(VICTIM, (BASE, TOP), (TAR, OCTETS)),
    "top called wasm": manifest_of(VICTIM, (BASE, TOP), (TAR, "application/wasm")),
    "all of another type": manifest_of(VICTIM, (BASE, TOP), (OCTETS, OCTETS)),
    "no types": manifest_of(VICTIM, (BASE, TOP), ("", "")),
    "without the top": manifest_of(VICTIM, (BASE,)),
    "without any": manifest_of(VICTIM, ()),
    "one more": manifest_of(VICTIM, (BASE, TOP, BASE)),
    "one more that is none": manifest_of(VICTIM, (BASE, TOP, WASM), (TAR, TAR, "application/wasm")),
    "another order": manifest_of(VICTIM, (TOP, BASE)),
    "other layers": manifest_of(VICTIM, (BASE, BASE)),
    "config called octets": manifest_of(VICTIM, (BASE,), config_type=OCTETS),
    "config called empty": manifest_of(VICTIM, (), config_type="application/vnd.oci.empty.v1+json"),
    "config called wasm": manifest_of(
        VICTIM, (WASM,), ("application/wasm",), config_type="application/vnd.wasm.config.v0+json"
    ),
    "encrypted": manifest_of(VICTIM, (BASE, TOP), (TAR, TAR + "+gzip+encrypted")),
    "other sizes": {
        **manifest_of(VICTIM, (BASE, TOP)),
        "layers": [descriptor(BASE, TAR) | {"size": (1 << 63) - 1}, descriptor(TOP, TAR) | {"size": 1}],
    },
}


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("first", ["victim", "stranger"])
async def test_a_stranger_with_the_config_of_another_changes_nothing(
    start: Start, spec_registry: SpecRegistry, first: str, stranger: str
) -> None:
    victim = image(spec_registry, "victim")
    name = serve(spec_registry, "stranger", STRANGERS[stranger], [VICTIM, BASE, TOP, WASM])
    service = await start()
    for turn in (victim, name) if first == "victim" else (name, victim):
        try:
            await service.pull(ImageSpec(image=turn))
        except PhantomError:
            assert turn == name
    id_ = digest_of(VICTIM)
    for now in (service, await start()):
        whole = now.find(victim)
        assert whole is not None
        assert whole.id == id_
        assert whole.size < 4_000_000
        assert len(now.layers(id_)) == 2
        assert [now.artifacts(each.id) for each in now.list()] == [()] * len(now.list())
        for each in (victim, id_, *([name] if now.find(name) else [])):
            assert content(now, each, "/bin") == b"guard"


@pytest.mark.parametrize(("count", "layers"), [(1, (BASE,)), (3, (BASE, TOP, BASE)), (0, ())])
async def test_layers_and_diff_ids_must_match_in_number(
    start: Start, spec_registry: SpecRegistry, count: int, layers: tuple[bytes, ...]
) -> None:
    name = serve(spec_registry, "odd", document := manifest_of(VICTIM, layers), [VICTIM, BASE, TOP])
    message = await refused((await start()).pull(ImageSpec(image=name)))
    assert message.startswith("DataLoss")
    assert f"manifest {digest_of(json.dumps(document).encode())} has {count} layers" in message
    assert f"config {digest_of(VICTIM)} lists 2" in message


async def test_a_layer_that_is_not_its_diff_id_is_refused_whatever_it_is(
    start: Start, spec_registry: SpecRegistry
) -> None:
    service = await start()
    module = config_of((WASM,))
    for number, (config, blob, kind, why) in enumerate(
        [
            (VICTIM, TOP, TAR, "content has DiffID"),
            (module, WASM + b"more", "application/wasm", "DiffID for it is"),
            (module, gzip.compress(WASM), "application/wasm", "DiffID for it is"),
            (module, WASM, TAR, "is no tar archive"),
            (module, b"\x1f\x8b\x08 broken", TAR, "cannot be decompressed"),
        ]
    ):
        layers = (blob, TOP) if config == VICTIM else (blob,)
        document = manifest_of(config, layers, (kind, *[TAR] * (len(layers) - 1)))
        message = await refused(
            service.pull(ImageSpec(image=serve(spec_registry, f"n{number}", document, [config, *layers])))
        )
        assert message.startswith("DataLoss")
        assert why in message
    assert service.list() == ()


@pytest.mark.parametrize("layer_type", [OCTETS, "", "text/plain", "application/vnd.unknown"])
@pytest.mark.parametrize("config_type", [OCTETS, "", "application/vnd.docker.container.image.v1+json"])
async def test_config_and_layers_are_taken_by_content(
    start: Start, spec_registry: SpecRegistry, layer_type: str, config_type: str
) -> None:
    zipped = gzip.compress(TOP, mtime=0)
    document = manifest_of(VICTIM, (BASE, zipped), (layer_type, layer_type), config_type)
    service = await start()
    name = serve(spec_registry, "octets", document, [VICTIM, BASE, zipped])
    assert await service.pull(ImageSpec(image=name)) == digest_of(VICTIM)
    assert content(service, name, "/bin") == b"guard"
    service.check_root(digest_of(VICTIM))


EMPTY = b"{}"
ATTESTATION = b'{"_type": "https://in-toto.io/Statement/v0.1"}'
ARTIFACTS = {  # shapes of real ones: config, its type, layers, their types
    "oras": (EMPTY, "application/vnd.oci.empty.v1+json", (b"text",), ("text/plain",)),
    "old oras": (EMPTY, "application/vnd.unknown.config.v1+json", (b"text",), (TAR,)),
    "untyped config": (EMPTY, OCI_CONFIG, (b"text",), ("text/plain",)),
    "no layers": (EMPTY, OCI_CONFIG, (), ()),
    "helm": (
        b'{"name": "chart"}',
        "application/vnd.cncf.helm.config.v1+json",
        (gzip.compress(BASE),),
        (TAR,),
    ),
    "cncf wasm": (b'{"os": "wasip1"}', "application/vnd.wasm.config.v0+json", (WASM,), ("application/wasm",)),
    "runwasi": (
        config_of((), architecture="wasm", os="wasi"),
        OCI_CONFIG,
        (WASM,),
        ("application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",),
    ),
    "not json": (b"\0\1", OCTETS, (TOP,), (OCTETS,)),
}


@pytest.mark.parametrize("shape", ARTIFACTS)
async def test_an_artifact_is_known_by_its_manifest(
    start: Start, spec_registry: SpecRegistry, shape: str
) -> None:
    config, config_type, layers, types = ARTIFACTS[shape]
    document = manifest_of(config, layers, types, config_type)
    one = serve(spec_registry, "one", document, [config, *layers])
    more = manifest_of(config, (*layers, b"more"), (*types, "text/plain"), config_type)
    other = serve(spec_registry, "other", more, [config, *layers, b"more"])
    service = await start()
    ids = [await service.pull(ImageSpec(image=name)) for name in (one, other)]
    assert ids == [spec_registry.tags["one:latest"], spec_registry.tags["other:latest"]]
    for now in (service, await start()):
        kept = [(kind, path.read_bytes()) for kind, path in now.artifacts(ids[0])]
        assert kept == list(zip(types, layers, strict=True))
        assert len(now.artifacts(ids[1])) == len(layers) + 1
        with pytest.raises(
            FailedPrecondition, match=f"{ids[0]} is an artifact of type .* no root file system"
        ):
            now.check_root(ids[0])
    await now.remove(one)
    assert now.find(other) is not None


@pytest.mark.parametrize(
    ("layer", "layer_type", "kept_as"),
    [
        (WASM, "application/wasm", "application/wasm"),
        (WASM, "application/vnd.stranger", "application/wasm"),
        (ATTESTATION, "application/vnd.in-toto+json", OCTETS),
        (b'{"critical": {}}', "application/vnd.dev.cosign.simplesigning.v1+json", OCTETS),
    ],
    ids=["wasm", "wasm of another type", "attestation", "cosign"],
)
async def test_layers_that_are_no_file_system_and_that_the_config_lists(
    start: Start, spec_registry: SpecRegistry, layer: bytes, layer_type: str, kept_as: str
) -> None:
    config = config_of((layer,))
    name = serve(spec_registry, "a", manifest_of(config, (layer,), (layer_type,)), [config, layer])
    service = await start()
    assert await service.pull(ImageSpec(image=name)) == digest_of(config)
    for now in (service, await start()):
        ((kind, path),) = now.artifacts(digest_of(config))
        assert (kind, path.read_bytes()) == (kept_as, layer)
        with pytest.raises(FailedPrecondition, match=f"no root file system: it is made of {kept_as}"):
            now.check_root(digest_of(config))


async def test_layers_with_and_without_files_in_one_image(start: Start, spec_registry: SpecRegistry) -> None:
    layers, types = (BASE, WASM, TOP), (TAR, "application/wasm", TAR)
    config = config_of(layers)
    name = serve(spec_registry, "mixed", manifest_of(config, layers, types), [config, *layers])
    service = await start()
    id_ = await service.pull(ImageSpec(image=name))
    for now in (service, await start()):
        assert content(now, name, "/bin") == b"guard"
        assert [kind for kind, _ in now.artifacts(id_)] == ["application/wasm"]
        now.check_root(id_)
    layers = (BASE, b"of a format that is not known here", TOP)
    config = config_of(layers)
    types = (TAR, "application/vnd.oci.image.layer.nydus.blob.v1", TAR)
    name = serve(spec_registry, "unknown", manifest_of(config, layers, types), [config, *layers])
    message = await refused(now.pull(ImageSpec(image=name)))
    assert message.startswith("FailedPrecondition")
    assert f"layer {digest_of(layers[1])} is neither" in message


async def test_a_manifest_that_is_a_config_as_well_is_refused(
    start: Start, spec_registry: SpecRegistry
) -> None:
    """Else one id could be an image for those who pull its config and an artifact for others."""
    document = manifest_of(EMPTY, (b"text",), ("text/plain",), "application/vnd.example")
    document |= {"rootfs": {"type": "layers", "diff_ids": []}}
    name = serve(spec_registry, "both", document, [EMPTY, b"text"])
    assert "is an image config as well" in await refused((await start()).pull(ImageSpec(image=name)))


# What lies below a layer


def root_of(service: ImageService, name: str) -> tuple[int, int, int]:
    """(uid, mode) of a container's `/` and the mode of /d, as overlayfs will show them."""
    found = service.find(name)
    assert found is not None
    layers = service.layers(found.id)
    root = os.stat(layers[0])
    inner = rootfs.lookup(layers, "d")
    return root.st_uid, stat.S_IMODE(root.st_mode), stat.S_IMODE(inner.status.st_mode) if inner else 0


@pytest.mark.root
@pytest.mark.parametrize("turn", [1, -1])
async def test_a_shared_layer_takes_after_what_is_below_it_in_each_image(
    start: Start, spec_registry: SpecRegistry, turn: int
) -> None:
    """Neither the root folder nor a parent that its archive does not name comes from another image."""
    plain = LayerBuilder().directory("d").finish()
    strict = LayerBuilder().directory(".", mode=0o700, uid=5).directory("d", mode=0o711, uid=5).finish()
    for kind, shared in {
        "root": LayerBuilder().file("shared", "x").finish(),
        "inner": LayerBuilder().file("d/shared", "x").finish(),
        "named": LayerBuilder().directory(".", mode=0o750).file("shared", "y").finish(),
    }.items():
        names = [
            image(spec_registry, f"{kind}-plain", (plain, shared)),
            image(spec_registry, f"{kind}-strict", (strict, shared)),
        ]
        service = await start()
        for name in names[::turn]:
            await service.pull(ImageSpec(image=name))
        for now in (service, await start()):
            expected = [(0, 0o755, 0o755), (5, 0o700, 0o711)]
            if kind == "named":
                expected = [(0, 0o750, 0o755), (0, 0o750, 0o711)]
            assert [root_of(now, name) for name in names] == expected, kind


async def test_an_unpacking_that_fails_over_other_layers_is_tried_over_ones_own(
    start: Start, spec_registry: SpecRegistry
) -> None:
    link = LayerBuilder().file("big", bytes(20_000_000)).hard_link("linked", "bin").finish()
    bad = image(spec_registry, "bad", (LayerBuilder().directory("nothing").finish(), link))
    good = image(spec_registry, "good", (BASE, link))
    service = await start()
    results = await asyncio.gather(
        *(service.pull(ImageSpec(image=name)) for name in (bad, good)), return_exceptions=True
    )
    assert isinstance(results[0], PhantomError)
    assert content(service, good, "/linked") == b"harmless"


async def test_one_layer_from_two_blobs_at_once(start: Start, spec_registry: SpecRegistry) -> None:
    """One of them is not what it should be; neither spoils the folder or the answer of the other."""
    big = LayerBuilder().file("big", os.urandom(10_000_000)).finish()
    config, zipped, wrong = (
        config_of((big,)),
        gzip.compress(big, 0, mtime=0),
        gzip.compress(big + BASE, 0, mtime=0),
    )
    names = [
        serve(spec_registry, f"n{number}", manifest_of(config, (blob,)), [config, blob])
        for number, blob in enumerate((wrong, big, zipped))
    ]
    service = await start()
    results = await asyncio.gather(
        *(service.pull(ImageSpec(image=name)) for name in names), return_exceptions=True
    )
    assert isinstance(results[0], DataLoss) or results[0] == results[1], "late, it may find the layer there"
    assert results[1:] == [digest_of(config)] * 2
    assert len(content(service, names[1], "/big") or b"") == 10_000_000


# Names


async def test_a_registry_must_show_the_manifest_that_it_names(
    start: Start, spec_registry: SpecRegistry
) -> None:
    victim = image(spec_registry, "victim")
    service = await start()
    await service.pull(ImageSpec(image=victim))
    digest = spec_registry.tags["victim:latest"]
    with SpecRegistry() as liar:
        liar.add_manifest(b"junk", OCI_MANIFEST, digest, "liar", "latest")
        message = await refused(service.pull(ImageSpec(image=f"{liar.host}/liar")))
        assert message.startswith("DataLoss")
        assert digest in message
        index = {"schemaVersion": 2, "manifests": [{"mediaType": OCI_MANIFEST, "digest": digest, "size": 4}]}
        indirect = serve(liar, "index", index, [], OCI_INDEX)
        assert (await refused(service.pull(ImageSpec(image=indirect)))).startswith("DataLoss")
        del liar.blobs[digest]
        assert (await refused(service.pull(ImageSpec(image=indirect)))).startswith("NotFound")
    (known,) = service.list()
    assert known.repo_tags == (victim,)
    spec_registry.asked.clear()
    await service.pull(ImageSpec(image=victim))
    assert [each.method for each in spec_registry.asked] == ["HEAD"], (
        "what it has shown once is not sent again"
    )


async def test_a_tag_that_moves_between_head_and_get(start: Start, spec_registry: SpecRegistry) -> None:
    name = image(spec_registry, "app")
    spec_registry.behaviour.hidden = {spec_registry.tags["app:latest"]}
    service = await start()
    image(spec_registry, "moved", (BASE,))
    moved = spec_registry.tags["moved:latest"]

    class Moving(dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            found = super().get(key, default)
            self["app:latest"] = moved
            return found

    spec_registry.tags = Moving(spec_registry.tags)
    assert await service.pull(ImageSpec(image=name)) == digest_of(config_of((BASE,)))
    found = service.find(name)
    assert found is not None
    assert found.repo_digests == (f"{spec_registry.host}/app@{moved}",)


async def test_a_slow_pull_turns_no_tag_back(start: Start, spec_registry: SpecRegistry) -> None:
    name = image(spec_registry, "app")
    spec_registry.behaviour.stall = {digest_of(TOP)}
    service = await start()
    slow = asyncio.ensure_future(service.pull(ImageSpec(image=name)))
    await until(lambda: spec_registry.blob_requests(digest_of(TOP)))
    image(spec_registry, "app", (BASE,))
    newer = await service.pull(ImageSpec(image=name), AuthConfig(username=USER, password=PASSWORD))
    spec_registry.behaviour.released.set()
    older = await slow
    for now in (service, await start()):
        assert now.image(newer).repo_tags == (name,)
        assert now.image(older).repo_tags == ()
        assert content(now, name, "/bin") == b"harmless"


@pytest.mark.parametrize("clock", [0, -(10**9)])
async def test_a_crash_between_two_records_of_a_moved_tag(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path, clock: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newer one has the tag, though the clock was set back; and the older one never has it again."""
    service = await start()
    name = image(spec_registry, "app")
    old = await service.pull(ImageSpec(image=name))
    record = tmp_path / "root" / "images" / f"{old[7:]}.json"
    before = record.read_bytes()
    now_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + clock * 10**9)
    image(spec_registry, "app", (BASE,))
    new = await service.pull(ImageSpec(image=name))
    record.write_bytes(before)  # as if it had not been written before the crash
    service = await start()
    assert service.image(new).repo_tags == (name,)
    assert service.image(old).repo_tags == ()
    await service.remove(new)
    service = await start()
    assert service.find(name) is None
    assert service.image(old).repo_tags == ()


async def test_a_digest_means_one_image(start: Start, spec_registry: SpecRegistry, tmp_path: Path) -> None:
    """An index may give this node another image than before: its digest then names the new one alone."""
    images = [image(spec_registry, f"n{number}", layers) for number, layers in enumerate([(BASE,), (TOP,)])]
    service = await start()
    one, other = [await service.pull(ImageSpec(image=name)) for name in images]
    shared = f"{spec_registry.host}/x@{digest_of(b'index')}"
    for number, image_id in enumerate((one, other)):
        path = tmp_path / "root" / "images" / f"{image_id[7:]}.json"
        record = from_json(path.read_bytes(), ImageRecord)
        path.write_bytes(to_json(replace(record, digests=(shared,), changed_at=number)))
    service = await start()
    assert service.image(one).repo_digests == ()
    assert service.find(shared) is service.image(other)
    await service.remove(one)
    assert service.find(shared) is not None


async def test_a_record_that_is_not_what_its_id_says_is_not_used(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = image(spec_registry, "app")
    service = await start()
    id_ = await service.pull(ImageSpec(image=name))
    path = tmp_path / "root" / "images" / f"{id_[7:]}.json"
    record = from_json(path.read_bytes(), ImageRecord)
    for changed in (
        replace(record, layers=record.layers[1:]),
        replace(record, layers=record.layers[::-1]),
        replace(record, config_digest=record.manifest),
        replace(record, layers=(), artifact_type="made up"),
    ):
        path.write_bytes(to_json(changed))
        service = await start()
        assert service.list() == ()
        assert await service.pull(ImageSpec(image=name)) == id_
        assert content(service, name, "/bin") == b"guard"


@pytest.mark.parametrize("kind", ["config", "manifest"])
async def test_what_is_damaged_on_disk_comes_again(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path, kind: str
) -> None:
    name = image(spec_registry, "app")
    service = await start()
    id_ = await service.pull(ImageSpec(image=name))
    digest = id_ if kind == "config" else spec_registry.tags["app:latest"]
    blob = tmp_path / "root" / "blobs" / digest.replace(":", "/")
    whole = blob.read_bytes()
    blob.write_bytes(b"damaged")
    assert await service.pull(ImageSpec(image=name)) == id_
    assert blob.read_bytes() == whole


async def test_a_blob_of_any_size_named_as_config_is_not_read(
    start: Start, spec_registry: SpecRegistry
) -> None:
    huge = bytes(3_000_000)
    document = manifest_of(EMPTY, (huge,), (OCTETS,), "application/vnd.example")
    service = await start(limits=Limits(config_bytes=1 << 20, manifest_bytes=1 << 20))
    await service.pull(ImageSpec(image=serve(spec_registry, "keeps", document, [EMPTY, huge])))
    small = manifest_of(huge, ())
    small["config"]["size"] = 10
    name = serve(spec_registry, "names", small, [])
    assert "3000000 bytes, the manifest says 10" in await refused(service.pull(ImageSpec(image=name)))


# Archives


def archive(path: Path, files: dict[str, bytes]) -> Path:
    layers = LayerBuilder()
    for name, blob in files.items():
        layers.file(name, blob)
    path.write_bytes(layers.finish())
    return path


async def test_an_archive_with_the_config_of_another(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    victim = image(spec_registry, "victim")
    service = await start()
    id_ = await service.pull(ImageSpec(image=victim))
    saved = json.dumps([{"Config": "c.json", "Layers": ["base"], "RepoTags": ["evil:1"]}]).encode()
    docker = archive(tmp_path / "docker", {"manifest.json": saved, "c.json": VICTIM, "base": BASE})
    assert "has 1 layers" in await refused(service.load(docker))
    document = json.dumps(manifest_of(VICTIM, (BASE, TOP), (TAR, OCTETS))).encode()
    entry = descriptor(document, OCI_MANIFEST, annotations={"io.containerd.image.name": "evil.example/a:1"})
    files = {"index.json": json.dumps({"manifests": [entry]}).encode()}
    files |= {f"blobs/sha256/{digest_of(blob)[7:]}": blob for blob in (document, VICTIM, BASE, TOP)}
    assert await service.load(archive(tmp_path / "layout", files)) == (id_,)
    files[f"blobs/sha256/{digest_of(VICTIM)[7:]}"] = config_of((BASE,))
    for name in (victim, id_, "evil.example/a:1"):
        assert content(service, name, "/bin") == b"guard"
    assert service.find("docker.io/library/evil:1") is None


def sha512(blob: bytes) -> str:
    return f"sha512:{hashlib.sha512(blob).hexdigest()}"


async def test_sha512_is_verified_as_well(start: Start, spec_registry: SpecRegistry, tmp_path: Path) -> None:
    document = manifest_of(VICTIM, (BASE, TOP))
    for each, blob in zip([document["config"], *document["layers"]], (VICTIM, BASE, TOP), strict=True):
        each["digest"] = sha512(blob)
        spec_registry.blobs[sha512(blob)] = blob
    manifest = json.dumps(document).encode()
    spec_registry.add_manifest(manifest, OCI_MANIFEST, sha512(manifest), "app", "latest")
    name = f"{spec_registry.host}/app@{sha512(manifest)}"
    service = await start()
    spec_registry.behaviour.corrupt = {sha512(manifest)}
    assert (await refused(service.pull(ImageSpec(image=name)))).startswith("DataLoss")
    spec_registry.behaviour.corrupt = {sha512(TOP)}
    assert (await refused(service.pull(ImageSpec(image=name)))).startswith("DataLoss")
    spec_registry.behaviour.corrupt = set()
    assert await service.pull(ImageSpec(image=name)) == digest_of(VICTIM)
    assert content(service, name, "/bin") == b"guard"
    entry = {"mediaType": OCI_MANIFEST, "digest": sha512(manifest), "size": len(manifest)}
    files = {"index.json": json.dumps({"manifests": [entry]}).encode()}
    files |= {f"blobs/sha512/{sha512(blob)[7:]}": blob for blob in (manifest, VICTIM, BASE, TOP)}
    await service.remove(name)
    assert await service.load(archive(tmp_path / "layout", files)) == (digest_of(VICTIM),)
    assert content(service, digest_of(VICTIM), "/bin") == b"guard"


# Downloads that are shared


async def stalled_pull(
    service: ImageService, registry: SpecRegistry, name: str, **auth: str
) -> asyncio.Future[str]:
    registry.behaviour.stall = {digest_of(TOP)}
    pull = asyncio.ensure_future(service.pull(ImageSpec(image=name), AuthConfig(**auth) if auth else None))
    await until(lambda: registry.sending[digest_of(TOP)])
    registry.behaviour.stall = set()
    return pull


async def test_nobody_waits_for_another_registry(start: Start, spec_registry: SpecRegistry) -> None:
    service = await start()
    with SpecRegistry() as slow:
        first = await stalled_pull(service, slow, image(slow, "app"))
        async with asyncio.timeout(5):
            await service.pull(ImageSpec(image=image(spec_registry, "app")))
        first.cancel()
        await asyncio.wait([first])
    assert [each.headers.get("Range") for each in spec_registry.blob_requests(digest_of(TOP))] == [None]


async def test_nobody_waits_for_other_credentials(start: Start, spec_registry: SpecRegistry) -> None:
    name = image(spec_registry, "app")
    spec_registry.behaviour.auth = "bearer"
    service = await start()
    first = await stalled_pull(service, spec_registry, name, registry_token=TOKEN)
    assert (await refused(service.pull(ImageSpec(image=name)))).startswith("Unauthenticated")
    async with asyncio.timeout(5):
        await service.pull(ImageSpec(image=name), AuthConfig(username=USER, password=PASSWORD))
    first.cancel()
    await asyncio.wait([first])
    assert content(service, name, "/bin") == b"guard"


async def test_a_download_that_gets_nowhere_is_not_waited_for(
    start: Start, spec_registry: SpecRegistry
) -> None:
    names = [image(spec_registry, name) for name in ("app", "other")]
    service = await start(limits=Limits(shared_progress_s=0.3))
    first = await stalled_pull(service, spec_registry, names[0])
    async with asyncio.timeout(5):
        await service.pull(ImageSpec(image=names[1]))
    assert len(spec_registry.blob_requests(digest_of(TOP))) == 2
    spec_registry.behaviour.released.set()
    await first
    (both,) = service.list()
    assert set(both.repo_tags) == set(names)


async def test_a_download_that_fails_is_tried_by_those_who_waited(
    start: Start, spec_registry: SpecRegistry
) -> None:
    """The first pull expects another length, so that it fails when the rest comes."""
    short = manifest_of(VICTIM, (BASE, TOP))
    short["layers"][1]["size"] = 2_000_000
    bad = serve(spec_registry, "bad", short, [VICTIM, BASE, TOP])
    good = [image(spec_registry, f"good{number}") for number in range(3)]
    service = await start()
    first = await stalled_pull(service, spec_registry, bad)
    others = [asyncio.ensure_future(service.pull(ImageSpec(image=name))) for name in good]
    await until(
        lambda: all(
            f"/v2/good{n}/manifests/latest" in {a.path for a in spec_registry.asked} for n in (0, 1, 2)
        )
    )
    await asyncio.sleep(0.1)
    assert len(spec_registry.blob_requests(digest_of(TOP))) == 1
    spec_registry.behaviour.released.set()
    assert (await refused(first)).startswith("DataLoss")
    assert await asyncio.gather(*others) == [digest_of(VICTIM)] * 3
    assert content(service, good[0], "/bin") == b"guard"


async def test_a_poisoned_part_is_not_resumed_by_another(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    service = await start()
    with SpecRegistry() as hostile:
        name = image(hostile, "app")
        hostile.blobs[digest_of(TOP)] = bytes(len(TOP))
        hostile.behaviour.cut = {digest_of(TOP): [2_000_000] + [0] * 20}
        with pytest.raises(RegistryUnavailable):
            await service.pull(ImageSpec(image=name))
        assert [part.stat().st_size for part in (tmp_path / "root" / "ingest").iterdir()] == [2_000_000]
    name = image(spec_registry, "app")
    await service.pull(ImageSpec(image=name))
    assert [each.headers.get("Range") for each in spec_registry.blob_requests(digest_of(TOP))] == [None]
    assert content(service, name, "/bin") == b"guard"


async def test_anothers_missing_blob_is_not_ones_own(start: Start, spec_registry: SpecRegistry) -> None:
    service = await start()
    with SpecRegistry() as poor:
        bad = image(poor, "app")
        del poor.blobs[digest_of(TOP)]
        good = image(spec_registry, "app")
        results = await asyncio.gather(
            *(service.pull(ImageSpec(image=name)) for name in (bad, good)), return_exceptions=True
        )
    assert isinstance(results[0], NotFound)
    assert results[1] == digest_of(VICTIM)


async def test_removed_while_it_is_pulled_again(start: Start, spec_registry: SpecRegistry) -> None:
    """Layers and blobs that are found are kept for whoever has found them."""
    names = [image(spec_registry, f"n{number}", (BASE, TOP), label=number) for number in range(2)]
    service = await start()
    for _ in range(30):
        await asyncio.gather(*(service.pull(ImageSpec(image=name)) for name in names))
        pulls = [asyncio.ensure_future(service.pull(ImageSpec(image=name))) for name in names]
        await asyncio.gather(*(service.remove(name) for name in names))
        await asyncio.gather(*pulls)
        for found in service.list():
            assert service.info(found.id)["imageSpec"]
            assert rootfs.read(service.layers(found.id), "/bin") == b"guard"
    assert len((await start()).list()) == len(service.list())

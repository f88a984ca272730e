"""Pulling over real HTTP: what arrives, what is refused, and what is left."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import random
import ssl
import subprocess
from pathlib import Path

import pytest

from harness.image import ImageConfig, LayerBuilder, build_image, write_layout
from harness.registry import Registry
from phantom_cri.errors import DataLoss, InvalidArgument, NotFound, PhantomError, Unauthenticated, Unavailable
from phantom_cri.images import ImageService, Limits, rootfs
from phantom_cri.model import AuthConfig, ImageSpec
from tests.e2e.images.conftest import Start, layout, tree
from tests.e2e.images.spec_registry import IDENTITY, PASSWORD, TOKEN, USER, Behaviour, SpecRegistry

HTPASSWD = "robot:$2b$05$abcdefghijklmnopqrstuuaa.ADHinTr43GDnwh7WUO1YHHk1hS02\n"  # of PASSWORD
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def layers_of(folder: Path) -> list[str]:
    entry = json.loads((folder / "index.json").read_text())["manifests"][0]
    manifest = json.loads((folder / "blobs/sha256" / entry["digest"][7:]).read_text())
    return [str(layer["digest"]) for layer in manifest["layers"]]


async def refused(service: ImageService, name: str, auth: AuthConfig | None = None) -> PhantomError:
    with pytest.raises(PhantomError) as caught:
        await service.pull(ImageSpec(image=name), auth)
    return caught.value


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
async def test_from_docker_registry(
    start: Start, registry: Registry, tmp_path: Path, compression: str
) -> None:
    build_image(tmp_path / "image", files={"etc/motd": "hello"}, compression=compression)  # type: ignore[arg-type]
    name = registry.push(tmp_path / "image", f"pull-{compression}")
    service = await start()
    image_id = await service.pull(ImageSpec(image=name))
    image = service.find(name)
    assert image is not None
    assert image.id == image_id
    assert image.repo_tags == (name,)
    assert service.list(image_id[7:20]) == (image,)
    assert service.find(image.repo_digests[0]) == image
    assert image.size > 0
    assert rootfs.read(service.layers(image_id), "/etc/motd") == b"hello"
    assert service.filesystem_usage().used_bytes > 1_000_000


async def test_basic_auth_at_docker_registry(start: Start, tmp_path: Path) -> None:
    layout(tmp_path / "image", count=1)
    with Registry(tmp_path / "private", htpasswd=HTPASSWD) as private:
        name = private.push(tmp_path / "image", "private", credentials=f"{USER}:{PASSWORD}")
        service = await start()
        for auth in (None, AuthConfig(username=USER, password="wrong-Pa55")):
            error = await refused(service, name, auth)
            assert isinstance(error, Unauthenticated)
            assert "wrong-Pa55" not in str(error)
        elsewhere = AuthConfig(username=USER, password=PASSWORD, server_address="https://elsewhere.example")
        assert isinstance(await refused(service, name, elsewhere), Unauthenticated)
        await service.pull(ImageSpec(image=name), AuthConfig(username=USER, password=PASSWORD))
        # What is here already is no way around the registry's own word.
        assert isinstance(await refused(service, name), Unauthenticated)


@pytest.mark.parametrize(
    "auth",
    [
        AuthConfig(username=USER, password=PASSWORD),
        AuthConfig(identity_token=IDENTITY),
        AuthConfig(registry_token=TOKEN),
    ],
    ids=["password", "identity", "token"],
)
async def test_bearer(
    start: Start,
    spec_registry: SpecRegistry,
    tmp_path: Path,
    auth: AuthConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    name = spec_registry.add(layout(tmp_path / "image"), "team/app")
    spec_registry.behaviour.auth = "bearer"
    service = await start()
    error = await refused(service, name, AuthConfig(username=USER, password="wrong-Pa55"))
    assert isinstance(error, Unauthenticated)
    await service.pull(ImageSpec(image=name), auth)
    for secret in (PASSWORD, TOKEN, IDENTITY, "wrong-Pa55"):
        assert secret not in caplog.text
        assert secret not in str(error)
    tokens = [each for each in spec_registry.asked if each.path == "/token"]
    assert all(each.query["scope"] == ["repository:team/app:pull"] for each in tokens)


async def test_a_secret_that_the_server_echoes_does_not_show(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    spec_registry.behaviour = Behaviour(auth="bearer", no_head=True)
    error = await refused(await start(), name, AuthConfig(registry_token="echoed-wr0ng-token"))
    assert "echoed-wr0ng-token" not in str(error)
    assert "UNAUTHORIZED" in str(error)


async def test_authorization_stays_with_its_host(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    with SpecRegistry() as storage:
        storage.blobs = spec_registry.blobs
        spec_registry.behaviour = Behaviour(auth="bearer", redirect=f"http://{storage.host}")
        await (await start()).pull(ImageSpec(image=name), AuthConfig(username=USER, password=PASSWORD))
        assert len(storage.asked) == 4
        assert not any("Authorization" in each.headers for each in storage.asked)


async def test_broken_downloads_go_on_where_they_stopped(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", size=3_000_000), "app")
    digests = layers_of(tmp_path / "image")
    spec_registry.behaviour.cut = {digest: [1_500_000, 10, 700_000] for digest in digests}
    await (await start()).pull(ImageSpec(image=name))
    for digest in digests:
        ranges = [each.headers.get("Range") for each in spec_registry.blob_requests(digest)]
        assert ranges == [None, "bytes=1500000-", "bytes=1500010-", "bytes=2200010-"]


async def test_a_server_without_ranges_begins_anew(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", count=1), "app")
    (digest,) = layers_of(tmp_path / "image")
    spec_registry.behaviour = Behaviour(cut={digest: [1000, 2000]}, no_range=True, no_head=True, fail_first=2)
    await (await start()).pull(ImageSpec(image=name))
    assert len(spec_registry.blob_requests(digest)) == 3


async def test_wrong_content_is_refused_and_leaves_nothing(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    service = await start()
    for digest in (layers_of(tmp_path / "image")[2], spec_registry.tags["app:latest"]):
        spec_registry.behaviour.corrupt = {digest}
        assert isinstance(await refused(service, name), DataLoss)
        service.wait_for_trash()
        assert tree(tmp_path / "root") == set()
        assert service.list() == ()
        assert service.filesystem_usage().used_bytes == 0


async def test_a_diff_id_that_does_not_match(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    folder = layout(tmp_path / "image", count=1)
    entry = json.loads((folder / "index.json").read_text())["manifests"][0]
    manifest = json.loads(spec_registry_blob(folder, entry["digest"]))
    config = json.loads(spec_registry_blob(folder, manifest["config"]["digest"]))
    config["rootfs"]["diff_ids"] = ["sha256:" + "0" * 64]
    manifest["config"] |= store(folder, json.dumps(config).encode())
    entry |= store(folder, json.dumps(manifest).encode())
    (folder / "index.json").write_text(json.dumps({"manifests": [entry]}))
    service = await start()
    error = await refused(service, spec_registry.add(folder, "app"))
    assert isinstance(error, DataLoss)
    assert "DiffID" in str(error)
    service.wait_for_trash()
    assert tree(tmp_path / "root") == set()


def spec_registry_blob(folder: Path, digest: str) -> bytes:
    return (folder / "blobs/sha256" / digest[7:]).read_bytes()


def store(folder: Path, content: bytes) -> dict[str, object]:
    digest = hashlib.sha256(content).hexdigest()
    (folder / "blobs/sha256" / digest).write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


async def test_hostile_layers_leave_nothing(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    good = LayerBuilder().directory("etc").finish()
    write_layout(tmp_path / "lost", [good, LayerBuilder().hard_link("evil", "../evil").finish()])
    write_layout(tmp_path / "bomb", [good, LayerBuilder().file("f", bytes(5 << 20)).finish()])
    service = await start(limits=Limits(layer_bytes=1 << 20))
    for name, code in (("lost", "INVALID_ARGUMENT"), ("bomb", "RESOURCE_EXHAUSTED")):
        error = await refused(service, spec_registry.add(tmp_path / name, name))
        assert error.code == code
        service.wait_for_trash()
        assert tree(tmp_path / "root") == set()
    assert not (tmp_path / "evil").exists()


async def test_errors_by_name(start: Start, spec_registry: SpecRegistry) -> None:
    service = await start()
    missing = await refused(service, f"{spec_registry.host}/nothing:here")
    assert isinstance(missing, NotFound)
    assert "MANIFEST_UNKNOWN" in str(missing)
    away = await refused(service, "127.0.0.1:1/nothing")
    assert isinstance(away, Unavailable)
    assert str(away).startswith("RegistryUnavailable")
    assert isinstance(await refused(service, "Not/A/Ref"), InvalidArgument | Unavailable)


async def test_mirrors_are_asked_in_order_with_the_namespace(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    spec_registry.add(layout(tmp_path / "image"), "library/app")
    (tmp_path / "certs" / "docker.io").mkdir(parents=True)
    (tmp_path / "certs" / "docker.io" / "hosts.toml").write_text(
        f'[host."http://127.0.0.1:1"]\n[host."http://{spec_registry.host}"]\n'
        f'[host."http://{spec_registry.host}".header]\nx-mirror = "yes"\n'
    )
    service = await start(registry_config_path=tmp_path / "certs")
    await service.pull(ImageSpec(image="app"))
    assert [image.repo_tags for image in service.list()] == [("docker.io/library/app:latest",)]
    assert all(each.query["ns"] == ["docker.io"] for each in spec_registry.asked)
    assert all(each.headers["x-mirror"] == "yes" for each in spec_registry.asked)


async def test_an_index_gives_its_digest_and_this_platform(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    spec_registry.add(layout(tmp_path / "image"), "app", "single")
    digest = spec_registry.tags["app:single"]
    entry = {"digest": digest, "size": len(spec_registry.blobs[digest]), "mediaType": MANIFEST_TYPE}
    other = {"digest": "sha256:" + "0" * 64, "size": 5, "platform": {"os": "plan9", "architecture": "vax"}}
    index = json.dumps({"schemaVersion": 2, "manifests": [other, entry]}).encode()
    index_digest = f"sha256:{hashlib.sha256(index).hexdigest()}"
    spec_registry.add_manifest(index, "application/vnd.oci.image.index.v1+json", index_digest, "app", "multi")
    service = await start()
    await service.pull(ImageSpec(image=f"{spec_registry.host}/app:multi"))
    (image,) = service.list()
    assert image.repo_digests == (f"{spec_registry.host}/app@{index_digest}",)


async def test_a_wasm_artifact_is_kept_as_it_came_under_the_digest_of_its_manifest(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    module = b"\0asm\1\0\0\0"
    (tmp_path / "wasm" / "blobs" / "sha256").mkdir(parents=True)
    config = store(tmp_path / "wasm", b'{"architecture":"wasm","os":"wasip1"}')
    layer = store(tmp_path / "wasm", module)
    manifest = {
        "schemaVersion": 2,
        "config": {"mediaType": "application/vnd.wasm.config.v0+json", **config},
        "layers": [{"mediaType": "application/wasm", **layer}],
    }
    entry = {"mediaType": MANIFEST_TYPE, **store(tmp_path / "wasm", json.dumps(manifest).encode())}
    (tmp_path / "wasm" / "index.json").write_text(json.dumps({"manifests": [entry]}))
    service = await start()
    image_id = await service.pull(ImageSpec(image=spec_registry.add(tmp_path / "wasm", "wasm")))
    assert image_id == entry["digest"]
    assert service.layers(image_id) == ()
    ((kind, path),) = service.artifacts(image_id)
    assert (kind, path.read_bytes()) == ("application/wasm", module)
    assert service.info(image_id)["artifactType"] == "application/vnd.wasm.config.v0+json"


async def test_pulls_at_the_same_time_are_one(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "app")
    spec_registry.add(tmp_path / "image", "other")
    service = await start()
    names = [name] * 5 + [f"{spec_registry.host}/other"] * 2
    ids = await asyncio.gather(*(service.pull(ImageSpec(image=each)) for each in names))
    assert len(set(ids)) == 1
    assert all(len(spec_registry.blob_requests(digest)) == 1 for digest in layers_of(tmp_path / "image"))
    assert len(service.list()[0].repo_tags) == 2


async def test_the_last_caller_who_leaves_ends_the_pull(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", size=3_000_000), "app")
    stalled = layers_of(tmp_path / "image")[1]
    spec_registry.behaviour.stall = {stalled}
    service = await start()
    reached = asyncio.Event()

    def watch(digest: str, state: str, done: int, total: int) -> None:
        if digest == stalled and done >= 1 << 20:
            reached.set()

    first = asyncio.ensure_future(service.pull(ImageSpec(image=name), progress=watch))
    second = asyncio.ensure_future(service.pull(ImageSpec(image=name)))
    await asyncio.wait_for(reached.wait(), 10)
    first.cancel()
    await asyncio.wait([first])
    assert not second.done()
    second.cancel()
    await asyncio.wait([second])
    assert service.list() == ()
    assert len(asyncio.all_tasks()) == 1
    spec_registry.behaviour.released.set()
    spec_registry.behaviour.stall = set()
    await service.pull(ImageSpec(image=name))
    assert spec_registry.blob_requests(stalled)[-1].headers["Range"].startswith("bytes=1")


def certificate(folder: Path) -> tuple[str, str]:
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=tests -days 2"
    names = ["-addext", "subjectAltName=DNS:registry.test,IP:127.0.0.1"]
    subprocess.run([*command.split(), *names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


async def test_tls_with_an_authority_of_the_site(start: Start, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    server.load_verify_locations(cert)
    server.verify_mode = ssl.CERT_OPTIONAL
    with SpecRegistry(server) as secure:
        secure.add(layout(tmp_path / "image"), "app")
        config = tmp_path / "certs" / "site.example" / "hosts.toml"
        config.parent.mkdir(parents=True)
        service = await start(registry_config_path=tmp_path / "certs")
        spec = ImageSpec(image="site.example/app")
        table = f'server = "https://{secure.host}"\n'
        config.write_text(table)
        error = await refused(service, spec.image)
        assert isinstance(error, Unavailable)
        assert "CERTIFICATE_VERIFY_FAILED" in str(error)
        config.write_text(table + 'ca = "missing.pem"\n')
        assert (await refused(service, spec.image)).code == "FAILED_PRECONDITION"
        config.write_text(table + f'ca = "{cert}"\nclient = [["{cert}", "{key}"]]\n')
        await service.pull(spec)
        assert service.find("site.example/app") is not None
        # Without any configuration loopback needs no authority, and TLS is tried before plain HTTP.
        await service.pull(ImageSpec(image=f"{secure.host}/app"))


@pytest.mark.root
async def test_a_full_disk_leaves_nothing(start: Start, spec_registry: SpecRegistry, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(root)]
    await asyncio.to_thread(subprocess.run, small, check=True)
    try:
        service = await start()
        name = spec_registry.add(layout(tmp_path / "image", size=1_200_000), "app")
        error = await refused(service, name)
        assert error.code == "RESOURCE_EXHAUSTED"
        assert "No space left" in str(error)
        service.wait_for_trash()
        assert tree(root) == set()
        small_one = spec_registry.add(layout(tmp_path / "small", size=1000), "small")
        await service.pull(ImageSpec(image=small_one))
        await service.close()
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", "--lazy", str(root)], check=True)


async def test_everything_at_once(start: Start, spec_registry: SpecRegistry, tmp_path: Path) -> None:
    """Pulls, removals, containers and changes of mind, in any order: in the end nothing is lost or left."""
    shared = LayerBuilder().directory("d").file("d/base", os.urandom(50_000)).finish()
    names = []
    for number in range(4):
        own = LayerBuilder().directory("d").file("d/own", str(number)).file("implied/own", "x").finish()
        write_layout(tmp_path / f"{number}", [shared, own], ImageConfig(labels={"n": str(number)}))
        names.append(spec_registry.add(tmp_path / f"{number}", f"n{number}"))
    service = await start()
    chance = random.Random(3)

    async def visitor(visit: int) -> None:
        name = chance.choice(names)
        pull = asyncio.ensure_future(service.pull(ImageSpec(image=name)))
        if chance.random() < 0.3:
            await asyncio.sleep(chance.uniform(0, 0.05))
            pull.cancel()
            await asyncio.wait([pull])
            return
        image_id = await pull
        if service.find(image_id) is not None:
            snapshot = service.snapshot(f"c{visit}", image_id)
            await asyncio.sleep(chance.uniform(0, 0.02))
            own = rootfs.read(snapshot.lower, "/d/own")
            assert own == name.rpartition("/n")[2].partition(":")[0].encode()
            assert len(rootfs.read(snapshot.lower, "/d/base") or b"") == 50_000
            service.drop_snapshot(f"c{visit}")
        if chance.random() < 0.5:
            await service.remove(name)

    for _ in range(8):
        await asyncio.gather(*(visitor(visit) for visit in range(12)))
    for name in names:
        await service.pull(ImageSpec(image=name))
    for name in names:
        await service.remove(name)
    await service.close()
    service = await start(resumable_for_s=0.0)
    service.wait_for_trash()
    assert tree(tmp_path / "root") == set()
    assert service.filesystem_usage().used_bytes == 0

"""Names, removal, holds, crashes and restarts: what stays and what goes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.image import ImageConfig, LayerBuilder, write_layout
from phantom_cri.errors import AlreadyExists, DataLoss, InvalidArgument, NotFound
from phantom_cri.images import rootfs
from phantom_cri.images.layers import measure
from phantom_cri.model import ImageSpec
from tests.e2e.images.conftest import Start, layout, tree
from tests.e2e.images.spec_registry import SpecRegistry
from tests.e2e.images.test_pull import layers_of

PULL = """
import asyncio, sys
from pathlib import Path
from phantom_cri.images import ImageService
from phantom_cri.model import ImageSpec

async def main(root, *names):
    service = ImageService(Path(root))
    await service.start({})
    print("started", flush=True)
    for name in names:
        await service.pull(ImageSpec(image=name))
        await service.remove(name) if name.endswith(":gone") else None
    print("pulled", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def pull_in_a_process(root: Path, *names: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PULL, str(root), *names], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def parts_of(root: Path, digest: str) -> list[Path]:
    return list((root / "ingest").glob(f"{digest[7:]}.*"))


def killed(process: subprocess.Popen[str]) -> None:
    with process:
        process.send_signal(signal.SIGKILL)


def shell(*command: str) -> None:
    subprocess.run(command, check=True)


async def until(condition: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "condition did not become true"
        await asyncio.sleep(0.01)


async def test_one_image_many_names(start: Start, spec_registry: SpecRegistry, tmp_path: Path) -> None:
    folder = layout(tmp_path / "image")
    names = [spec_registry.add(folder, name, tag) for name, tag in (("a", "1"), ("a", "2"), ("b", "1"))]
    service = await start(pinned=[f"{spec_registry.host}/a:*"])
    ids = {await service.pull(ImageSpec(image=name)) for name in names}
    assert len(ids) == 1
    (image,) = service.list()
    assert image.repo_tags == tuple(names)
    assert len(image.repo_digests) == 2
    assert image.pinned
    for name in (*names, *image.repo_digests, image.id, image.id[7:], image.id[7:15]):
        assert service.find(name) is image
    await asyncio.gather(*(service.remove(image.repo_digests[0]) for _ in range(5)))
    assert service.list() == ()
    assert all(service.find(name) is None for name in (*names, image.id))
    service.wait_for_trash()
    assert tree(tmp_path / "root") == set()
    await service.remove(image.id)


async def test_by_digest_leaves_no_tag(start: Start, spec_registry: SpecRegistry, tmp_path: Path) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "a", "1")
    digest = spec_registry.tags["a:1"]
    service = await start()
    await service.pull(ImageSpec(image=f"{name}@{digest}"))
    (image,) = service.list()
    assert image.repo_tags == ()
    assert image.repo_digests == (f"{spec_registry.host}/a@{digest}",)
    with pytest.raises(DataLoss):
        spec_registry.tags[f"a:{'sha256:' + '1' * 64}"] = digest
        await service.pull(ImageSpec(image=f"{spec_registry.host}/a@sha256:{'1' * 64}"))


async def test_a_tag_moves_and_stays_moved(start: Start, spec_registry: SpecRegistry, tmp_path: Path) -> None:
    service = await start()
    name = spec_registry.add(layout(tmp_path / "one", seed="one"), "a")
    first = await service.pull(ImageSpec(image=name))
    spec_registry.add(layout(tmp_path / "two", seed="two"), "a")
    second = await service.pull(ImageSpec(image=name))
    assert first != second
    for now in (service, await start()):
        assert now.image(first).repo_tags == ()
        assert now.image(second).repo_tags == (name,)


async def test_layers_are_shared_and_live_as_long_as_their_users(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    base = LayerBuilder().directory("d").file("d/base", os.urandom(1000)).finish()
    names = []
    for seed in ("one", "two"):
        top = LayerBuilder().directory("d").file("d/top", seed).finish()
        write_layout(tmp_path / seed, [base, top], ImageConfig(labels={"seed": seed}))
        names.append(spec_registry.add(tmp_path / seed, seed))
    service = await start()
    one, two = [await service.pull(ImageSpec(image=name)) for name in names]
    assert service.layers(one)[1] == service.layers(two)[1]
    layers = service.layers(one)
    snapshot = service.snapshot("c1", one)
    assert snapshot.lower[:-1] == layers
    with pytest.raises(AlreadyExists):
        service.snapshot("c1", one)
    await service.remove(one)
    await service.remove(two)
    assert all(map(os.path.isdir, snapshot.lower))
    service = await start({"c1": layers})
    assert rootfs.read(snapshot.lower, "/d/top") == b"one"
    assert "upper" in os.listdir(snapshot.folder)
    used = service.filesystem_usage()
    assert used.inodes_used == sum(measure(layer)[1] for layer in layers)
    assert used.used_bytes == sum(measure(layer)[0] for layer in layers)
    service.drop_snapshot("c1")
    service.drop_snapshot("c1")
    service.wait_for_trash()
    assert tree(tmp_path / "root") == set()
    assert (service.filesystem_usage().used_bytes, service.filesystem_usage().inodes_used) == (0, 0)
    with pytest.raises(NotFound):
        service.snapshot("c2", one)


async def test_images_survive_a_restart(start: Start, spec_registry: SpecRegistry, tmp_path: Path) -> None:
    name = spec_registry.add(layout(tmp_path / "image"), "a")
    before = await start()
    await before.pull(ImageSpec(image=name))
    left = before.snapshot("gone", before.list()[0].id)
    after = await start()
    assert after.list() == before.list()
    assert after.filesystem_usage().used_bytes == before.filesystem_usage().used_bytes
    assert left.folder not in map(str, (tmp_path / "root" / "containers").iterdir())


async def test_a_damaged_store_shows_only_what_is_whole(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    names = [spec_registry.add(layout(tmp_path / seed, seed=seed), seed) for seed in ("a", "b")]
    service = await start()
    broken, whole = [await service.pull(ImageSpec(image=name)) for name in names]
    record = tmp_path / "root" / "layers" / f"{Path(service.layers(broken)[0]).name}.json"
    record.write_text("{}")
    service = await start()
    assert [image.id for image in service.list()] == [whole]
    assert await service.pull(ImageSpec(image=names[0])) == broken


async def test_killed_in_mid_pull(start: Start, spec_registry: SpecRegistry, tmp_path: Path) -> None:
    name = spec_registry.add(layout(tmp_path / "image", size=4_000_000), "a")
    stalled = layers_of(tmp_path / "image")[1]
    spec_registry.behaviour.stall = {stalled}
    root = tmp_path / "root"
    process = pull_in_a_process(root, name)
    await until(lambda: any(part.stat().st_size >= 1 << 20 for part in parts_of(root, stalled)))
    killed(process)
    service = await start()
    assert service.list() == ()
    assert list((root / "staging").iterdir()) == []
    spec_registry.behaviour.stall = set()
    image_id = await service.pull(ImageSpec(image=name))
    assert spec_registry.blob_requests(stalled)[-1].headers["Range"].startswith("bytes=")
    assert len(rootfs.read(service.layers(image_id), "/layer1") or b"") == 4_000_000
    await service.remove(name)
    service.wait_for_trash()
    assert tree(root) == set()


async def test_left_over_downloads_grow_old(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", size=4_000_000), "a")
    stalled = layers_of(tmp_path / "image")[1]
    spec_registry.behaviour.stall = {stalled}
    root = tmp_path / "root"
    process = pull_in_a_process(root, name)
    await until(lambda: any(part.stat().st_size >= 1 << 20 for part in parts_of(root, stalled)))
    killed(process)
    service = await start(resumable_for_s=0.0)
    service.wait_for_trash()
    assert tree(root) == set()


async def test_killed_at_any_moment(start: Start, spec_registry: SpecRegistry, tmp_path: Path) -> None:
    names = [
        spec_registry.add(layout(tmp_path / f"{number}", seed=f"{number}"), f"n{number}", tag)
        for number, tag in enumerate(("kept", "gone", "kept"))
    ]
    root = tmp_path / "root"
    chance = random.Random(1)
    for _ in range(12):
        process = pull_in_a_process(root, *names)
        await asyncio.sleep(chance.uniform(0, 0.25))
        killed(process)
        service = await start()
        for image in service.list():
            for number in range(3):
                content = rootfs.read(service.layers(image.id), f"/seed{number}")
                assert content == image.config.labels["seed"].encode()
        await service.close()
    service = await start()
    for name in names:
        await service.pull(ImageSpec(image=name))
        await service.remove(name)
    service.wait_for_trash()
    assert tree(root) == set()


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive", "gzipped"])
async def test_load(start: Start, tmp_path: Path, form: str) -> None:
    layout(tmp_path / "image", seed="loaded")
    archive = tmp_path / "image.tar"
    kind = "docker-archive" if form == "docker-archive" else "oci-archive"
    target = f"{kind}:{archive}:quay.example/team/app:v1"
    command = ["skopeo", "copy", "--quiet", f"oci:{tmp_path}/image:latest", target]
    shell(*command)
    if form == "gzipped":
        shell("gzip", str(archive))
        archive = tmp_path / "image.tar.gz"
    service = await start()
    (image_id,) = await service.load(archive)
    image = service.find("quay.example/team/app:v1")
    assert image is not None
    assert image.id == image_id
    assert bool(image.repo_digests) == (form != "docker-archive")
    assert rootfs.read(service.layers(image_id), "/seed2") == b"loaded"
    await service.remove(image_id)
    service.wait_for_trash()
    assert tree(tmp_path / "root") == set()


async def test_files_that_are_no_archives(start: Start, tmp_path: Path) -> None:
    service = await start()
    with pytest.raises(NotFound, match="nowhere"):
        await service.load(tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello" * 1000)
    with pytest.raises(DataLoss):
        await service.load(tmp_path / "text")
    (tmp_path / "tar").write_bytes(LayerBuilder().file("f", "x").finish())
    with pytest.raises(InvalidArgument, match=r"neither index\.json nor manifest\.json"):
        await service.load(tmp_path / "tar")
    lost = LayerBuilder().file("index.json", f'{{"manifests":[{{"digest":"sha256:{"0" * 64}","size":1}}]}}')
    (tmp_path / "lost").write_bytes(lost.finish())
    with pytest.raises(DataLoss, match="missing"):
        await service.load(tmp_path / "lost")
    service.wait_for_trash()
    assert tree(tmp_path / "root") == set()


@pytest.mark.root
async def test_the_kernel_sees_what_we_see(start: Start, spec_registry: SpecRegistry, tmp_path: Path) -> None:
    """The stack mounted as overlayfs against the same stack read without mounting."""
    first = (
        LayerBuilder().directory("d").file("d/a", "1").file("d/b", "1").directory("o").file("o/x", "1")
        .directory("t", mode=0o1777).symlink("l", "d").file("gone", "1").directory("w").file("w/in", "1")
    )  # fmt: skip
    second = (
        LayerBuilder().file("d/.wh.a", "").file("o/.wh..wh..opq", "").file("o/y", "2").file("t/n", "2")
        .file("l/via", "2").file(".wh.gone", "").file(".wh.w", "").directory("w").file("w/new", "2")
        .hard_link("linked", "d/b")
    )  # fmt: skip
    third = LayerBuilder().file("d/a", "3").directory("gone").file("gone/back", "3")
    write_layout(tmp_path / "image", [each.finish() for each in (first, second, third)])
    service = await start()
    image_id = await service.pull(ImageSpec(image=spec_registry.add(tmp_path / "image", "a")))
    snapshot = service.snapshot("c", image_id)
    merged = tmp_path / "merged"
    merged.mkdir()
    options = f"lowerdir={':'.join(snapshot.lower)},upperdir={snapshot.upper},workdir={snapshot.work}"
    shell("mount", "-t", "overlay", "overlay", "-o", options, str(merged))
    try:
        seen = {
            str(path.relative_to(merged)): (path.lstat().st_mode, path.is_file() and path.read_bytes())
            for path in merged.rglob("*")
        }
    finally:
        shell("umount", str(merged))
    for name, (mode, content) in seen.items():
        found = rootfs.lookup(snapshot.lower, name)
        assert found is not None, name
        assert found.status.st_mode == mode, name
        assert content is False or rootfs.read(snapshot.lower, name) == content
    ours: set[str] = set()
    pending = [("", rootfs.lookup(snapshot.lower, ""))]
    while pending:
        above, found = pending.pop()
        assert found is not None
        inner = [(f"{above}{name}", each) for name, each in rootfs.children(found.folders)]
        ours.update(name for name, _ in inner)
        pending += [(f"{name}/", each) for name, each in inner]
    assert ours == set(seen)
    assert {"d/a", "d/via", "gone/back", "o/y", "w/new", "linked"} <= ours
    assert not {"o/x", "w/in"} & ours

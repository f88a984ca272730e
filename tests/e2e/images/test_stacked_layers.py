"""Layers that an image has twice, and images of many layers: what the stack shows, and what keeps it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.image import LayerBuilder
from phantom_cri.errors import ResourceExhausted
from phantom_cri.images import ImageService, Limits, rootfs
from phantom_cri.images.volumes import stack
from phantom_cri.model import ImageSpec
from tests.e2e.images.conftest import Start
from tests.e2e.images.manifests import config_of, manifest_of, serve
from tests.e2e.images.spec_registry import SpecRegistry

LOW = LayerBuilder().directory("d").file("d/low", "low").file("f", "low").file("only", "low").finish()
TOP = LayerBuilder().directory("d").file("d/top", "top").file("f", "top").file(".wh.only", "").finish()
OPAQUE = LayerBuilder().directory("d").file("d/.wh..wh..opq", "").file("d/new", "new").finish()
LINK = LayerBuilder().hard_link("link", "f").finish()  # its content is that of the layers below
BARE = LayerBuilder().file("x/y", "y").finish()  # takes the mode of x from below

STACKS: dict[str, tuple[tuple[bytes, ...], dict[str, bytes | None]]] = {
    "one twice": ((LOW, LOW), {"f": b"low", "only": b"low", "d/low": b"low"}),
    "one three times": ((LOW, LOW, LOW), {"f": b"low"}),
    "apart": ((LOW, TOP, LOW), {"f": b"low", "only": b"low", "d/low": b"low", "d/top": b"top"}),
    "a whiteout twice": ((LOW, TOP, LOW, TOP), {"f": b"top", "only": None, "d/low": b"low"}),
    "opaque below": ((LOW, OPAQUE, LOW), {"d/low": b"low", "d/new": b"new"}),
    "opaque twice": ((LOW, OPAQUE, LOW, OPAQUE), {"d/low": None, "d/new": b"new", "f": b"low"}),
    "a link into other layers": ((LOW, LINK, TOP, LINK), {"link": b"top", "f": b"top"}),
    "a link into the same layers": ((LOW, LINK, LINK), {"link": b"low"}),
    "a folder that is not named": ((LOW, BARE, BARE), {"x/y": b"y"}),
}


async def pulled(
    service: ImageService, registry: SpecRegistry, layers: Sequence[bytes], name: str = "a"
) -> str:
    config = config_of(layers)
    reference = serve(registry, name, manifest_of(config, layers), [config, *layers])
    return await service.pull(ImageSpec(image=reference))


def many(count: int) -> list[bytes]:
    """Layers that each change the same file and add one of their own."""
    return [
        LayerBuilder().directory("d").file("last", str(number)).file(f"d/{number}", str(number)).finish()
        for number in range(count)
    ]


@pytest.mark.parametrize("shape", STACKS)
async def test_a_layer_several_times(start: Start, spec_registry: SpecRegistry, shape: str) -> None:
    layers, expected = STACKS[shape]
    service = await start()
    image_id = await pulled(service, spec_registry, layers)
    folders = service.layers(image_id)
    assert len(set(folders)) == len(folders) <= len(layers)
    assert {path: rootfs.read(folders, path) for path in expected} == expected
    mount = service.mount(image_id, "")
    assert len(set(mount.stack)) == len(mount.stack)
    assert service.snapshot("c", image_id, [mount]).lower[:-1] == folders


async def test_a_sub_path_of_a_layer_that_is_there_twice(start: Start, spec_registry: SpecRegistry) -> None:
    service = await start()
    image_id = await pulled(service, spec_registry, (LOW, TOP, LOW))
    low, top = service.layers(image_id)
    empty = str(service.layer_folders[1].parent / "empty")
    assert service.mount(image_id, "d").stack == (f"{low}/d", f"{top}/d")
    assert service.mount(image_id, "d/top").stack == (f"{top}/d/top",)
    assert service.mount(image_id, "f").stack == (f"{low}/f",)
    opaque = await pulled(service, spec_registry, (LOW, OPAQUE, OPAQUE))
    first = service.layers(opaque)[0]
    assert service.mount(opaque, "d").stack == stack([first], "d", empty) == (f"{first}/d", empty)


async def test_holds_of_a_layer_that_is_there_twice(start: Start, spec_registry: SpecRegistry) -> None:
    """It stays for whoever needs it last, and then goes: also through a restart."""
    service = await start()
    twice = await pulled(service, spec_registry, (LOW, TOP, LOW), "twice")
    once = await pulled(service, spec_registry, (LOW,), "once")
    folders = service.layers(twice)
    snapshot = service.snapshot("c", twice, [service.mount(once, "")])
    await service.remove(twice)
    assert all(map(os.path.isdir, folders))
    service = await start({"c": snapshot.lower[:-1]})
    await service.remove(once)
    assert all(map(os.path.isdir, folders))
    service.drop_snapshot("c")
    assert not any(map(os.path.lexists, folders))


async def test_the_image_is_whole_after_a_restart(start: Start, spec_registry: SpecRegistry) -> None:
    image_id = await pulled(await start(), spec_registry, (LOW, TOP, LOW))
    service = await start()
    assert rootfs.read(service.layers(image_id), "only") == b"low"


@pytest.mark.parametrize("count", [127, 300, 499])
async def test_many_layers(start: Start, spec_registry: SpecRegistry, count: int) -> None:
    service = await start()
    folders = service.layers(await pulled(service, spec_registry, many(count)))
    assert len(folders) == count
    assert rootfs.read(folders, "last") == str(count - 1).encode()
    assert rootfs.read(folders, "d/0") == b"0"


async def test_more_layers_than_the_kernel_stacks(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    service = await start()
    with pytest.raises(ResourceExhausted, match=r"500 layers, at most 499 can be stacked"):
        await pulled(service, spec_registry, many(500))
    assert service.list() == ()
    assert list((tmp_path / "root" / "layers").iterdir()) == []
    assert Limits().layers == 499

"""Images and layers whose records a later release has written: kept through changes, or left as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.image import LayerBuilder
from phantom_cri.model import ImageSpec
from tests.e2e.images.conftest import Start
from tests.e2e.images.manifests import config_of, manifest_of, serve
from tests.e2e.images.spec_registry import SpecRegistry

BASE = LayerBuilder().directory("etc").file("etc/base", "base").finish()
LATER = {"later": {"deep": [1, None]}}


def image(registry: SpecRegistry, name: str, content: str) -> str:
    layers = (BASE, LayerBuilder().file("top", content).finish())
    config = config_of(layers)
    return serve(registry, name, manifest_of(config, layers), [config, *layers])


def files(root: Path, kind: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (root / kind).rglob("*") if path.is_file()}


def rewrite(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | LATER | fields))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


async def test_further_fields_stay_through_a_change(
    start: Start, spec_registry: SpecRegistry, root: Path
) -> None:
    service = await start(resumable_for_s=0.0)
    id_ = await service.pull(ImageSpec(image=image(spec_registry, "one", "a")))
    for kind in ("images", "layers"):
        for path in (root / kind).glob("*.json"):
            rewrite(path)
    service = await start(resumable_for_s=0.0)
    assert [one.id for one in service.list()] == [id_]
    assert await service.pull(ImageSpec(image=image(spec_registry, "two", "a"))) == id_
    assert len(service.image(id_).repo_tags) == 2
    for kind in ("images", "layers"):
        for path in (root / kind).glob("*.json"):
            assert json.loads(path.read_bytes())["later"] == LATER["later"], path


@pytest.mark.parametrize("kind", ["images", "layers"])
async def test_a_newer_schema_is_left_as_it_is_with_all_that_it_may_need(
    start: Start, spec_registry: SpecRegistry, root: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = image(spec_registry, "one", "a")
    service = await start(resumable_for_s=0.0)
    id_ = await service.pull(ImageSpec(image=name))
    for path in (root / kind).glob("*.json"):
        rewrite(path, schema=2, name={"of": "another kind"}, id=["so", "too"])
    kinds = ("images", "layers", "blobs")
    before = [files(root, each) for each in kinds]

    service = await start(resumable_for_s=0.0)
    assert service.list() == ()
    assert "is ignored and not changed: it has schema 2 of a newer phantom-cri" in caplog.text
    other = await service.pull(ImageSpec(image=image(spec_registry, "two", "b")))
    await service.remove(other)
    service = await start(resumable_for_s=0.0)
    assert [files(root, each) for each in kinds] == before, "nothing of it is discarded"

    assert await service.pull(ImageSpec(image=name)) == id_, "it can come again"
    assert len(service.layers(id_)) == 2
    for path, content in before[1].items():
        assert path.read_bytes() == content, "beside the layers that were left"


async def test_a_damaged_record_goes(start: Start, spec_registry: SpecRegistry, root: Path) -> None:
    name = image(spec_registry, "one", "a")
    for text in ("{", '{"schema": "two"}', '{"schema": 1}'):
        service = await start(resumable_for_s=0.0)
        id_ = await service.pull(ImageSpec(image=name))
        for kind in ("images", "layers"):
            next((root / kind).glob("*.json")).write_text(text)
        service = await start(resumable_for_s=0.0)
        assert service.list() == ()
        assert list((root / "images").iterdir()) == []
        assert await service.pull(ImageSpec(image=name)) == id_


async def test_what_unknown_containers_may_need_is_spared(
    start: Start, spec_registry: SpecRegistry, root: Path
) -> None:
    service = await start(resumable_for_s=0.0)
    id_ = await service.pull(ImageSpec(image=image(spec_registry, "one", "a")))
    service.snapshot("c1", id_)
    await service.remove(id_)
    layers = files(root, "layers")
    assert layers
    for _ in range(2):
        service = await start(spare=True)
    assert (root / "containers" / "c1" / "upper").is_dir()
    assert files(root, "layers") == layers
    await start()
    assert not (root / "containers" / "c1").exists()
    assert files(root, "layers") == {}

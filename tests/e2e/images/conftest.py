"""An image service on a folder of its own, registries, and images of a few layers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from harness.image import ImageConfig, LayerBuilder, write_layout
from phantom_cri.images import ImageService
from tests.e2e.images.spec_registry import SpecRegistry

Start = Callable[..., Awaitable[ImageService]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a service on `tmp_path/root` (again, if asked twice: as after a restart)."""
    running: list[ImageService] = []

    async def begin(
        in_use: dict[str, tuple[str, ...]] | None = None, *, spare: bool = False, **options: object
    ) -> ImageService:
        for service in running:
            await service.close()
        service = ImageService(tmp_path / "root", **options)  # type: ignore[arg-type]
        running[:] = [service]
        await service.start(in_use or {}, spare=spare)
        return service

    yield begin
    for service in running:
        await service.close()


@pytest.fixture
def spec_registry() -> Iterator[SpecRegistry]:
    with SpecRegistry() as running:
        yield running


def layout(folder: Path, *, seed: str = "", count: int = 3, size: int = 100_000) -> Path:
    """An image of `count` layers with a file of incompressible `size` bytes each, `/layerN`."""
    layers = []
    for number in range(count):
        builder = LayerBuilder()
        if number == 0:
            builder.directory("etc").file("etc/passwd", "root:x:0:0::/root:/bin/sh\n")
        builder.file(f"layer{number}", os.urandom(size) if size else seed.encode())
        builder.file(f"seed{number}", seed)
        layers.append(builder.finish())
    write_layout(folder, layers, ImageConfig(labels={"seed": seed}), "none")
    return folder


def tree(root: Path) -> set[str]:
    """Everything below `root` but the fixed folders, the skeleton and what waits for containers."""
    fixed = {
        "blobs",
        "blobs/sha256",
        "blobs/sha512",
        "containers",
        "empty",
        "images",
        "ingest",
        "layers",
        "staging",
        "trash",
    }
    found = {str(path.relative_to(root)) for path in root.rglob("*")} - fixed
    return {name for name in found if not name.startswith(("containers/.spare-", "skeleton"))}

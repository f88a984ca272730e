"""One unpacked root for all tests of this folder; a pod for each."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from harness.image import busybox_layer
from phantom_cri.cgroups import Cgroups, detect
from tests.e2e.launch.pod import Pod, running_pod


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rootfs")
    with tarfile.open(fileobj=io.BytesIO(busybox_layer())) as layer:
        layer.extractall(folder, filter="fully_trusted")  # noqa: S202 - made right here
    return folder


@pytest.fixture(scope="session")
def cgroups() -> Iterator[Cgroups]:
    found = detect()
    yield found
    found.close()


@pytest.fixture
async def pod(tmp_path: Path, rootfs: Path, cgroups: Cgroups) -> AsyncIterator[Pod]:
    async with running_pod(tmp_path / "pod", rootfs, cgroups) as made:
        yield made

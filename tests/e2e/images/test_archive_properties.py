"""Random valid images: the mounted root is, path by path, the one that containerd mounts."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from phantom_cri.images import ImageService, Limits
from tests.e2e.harness.containerd import Choices, Containerd
from tests.e2e.harness.host import unmount_below
from tests.e2e.harness.image import write_layout
from tests.e2e.harness.tools import tool
from tests.e2e.images.random_images import RandomLayer, images

pytestmark = pytest.mark.root

PHANTOM = "a name that cannot be opened"
"""A whiteout in a folder that is there once: overlayfs leaves it out of merged folders only. containerd
has them (docker as well); here what hides nothing is not made."""

SETTINGS = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)


@dataclass
class Both:
    """An image service and a containerd that take the same archives."""

    folder: Path
    service: ImageService
    runner: asyncio.Runner
    containerd: Containerd
    numbers: Iterator[int] = field(default_factory=count)

    def shown(self, layers: list[bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the root of a container of this image has, ours and containerd's."""
        name = f"image{next(self.numbers)}"
        folder = self.folder / name
        write_layout(folder / "layout", layers, compression="none")
        archive = folder / "image.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(folder / "layout", ".")
        for target in ("ours", "theirs"):
            (folder / target).mkdir()
        try:
            self._mount_ours(archive, folder / "ours", name)
            self._mount_theirs(archive, folder / "theirs", name)
            return listing(folder / "ours"), listing(folder / "theirs")
        finally:
            unmount_below(folder)

    def _mount_ours(self, archive: Path, target: Path, name: str) -> None:
        async def load() -> str:
            (image_id,) = await self.service.load(archive)
            return image_id

        image_id = self.runner.run(load())
        made = self.service.snapshot(name, image_id)
        options = f"lowerdir={':'.join(made.lower[:-1])},upperdir={made.upper},workdir={made.work}"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", target], check=True)

    def _mount_theirs(self, archive: Path, target: Path, name: str) -> None:
        self._ctr("images", "import", "--local", "--snapshotter", "overlayfs", "--index-name", name, archive)
        self._ctr("images", "mount", "--snapshotter", "overlayfs", "--rw", name, target)

    def _ctr(self, *words: object) -> None:
        command = [tool("containerd").with_name("ctr"), "-a", self.containerd.socket, "-n", "test", *words]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    folder = Path(tempfile.mkdtemp(prefix="pf-"))
    with Containerd(folder, Choices("none")) as containerd, asyncio.Runner() as runner:
        service = runner.run(started(folder / "ours"))
        try:
            yield Both(folder, service, runner, containerd)
        finally:
            runner.run(service.close())


async def started(root: Path) -> ImageService:
    service = ImageService(root, limits=Limits(duplicates="last_wins"))
    await service.start({})
    return service


def listing(root: Path) -> dict[str, Any]:
    """Everything below `root`: what it is, has and says, and which names are one file."""
    found: dict[str, Any] = {}
    same: dict[int, list[str]] = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            inside = str(path.relative_to(root))
            try:
                status = path.lstat()
            except FileNotFoundError:
                found[inside] = PHANTOM
                continue
            found[inside] = described(path, status)
            if not stat.S_ISDIR(status.st_mode):
                same.setdefault(status.st_ino, []).append(inside)
    found["hard links"] = sorted(sorted(names) for names in same.values() if len(names) > 1)
    return found


def described(path: Path, status: os.stat_result) -> dict[str, Any]:
    names = [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("user.")]
    return {
        "mode": stat.filemode(status.st_mode),
        "owner": (status.st_uid, status.st_gid),
        "device": status.st_rdev,
        "time": None if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns,
        "content": path.read_bytes() if stat.S_ISREG(status.st_mode) else None,
        "target": os.readlink(path) if stat.S_ISLNK(status.st_mode) else None,
        "attributes": {name: os.getxattr(path, name, follow_symlinks=False) for name in sorted(names)},
    }


def check(both: Both, image: list[RandomLayer]) -> None:
    ours, theirs = both.shown([layer.archive() for layer in image])
    theirs = {path: what for path, what in theirs.items() if what != PHANTOM}
    assert ours == theirs, [layer.members for layer in image]


@given(image=images())
@settings(SETTINGS, max_examples=60, phases=[Phase.generate])  # a failure would be made smaller for minutes
def test_as_containerd(both: Both, image: list[RandomLayer]) -> None:
    check(both, image)


@pytest.mark.long
@given(image=images())
@settings(SETTINGS, max_examples=3000)
def test_as_containerd_for_long(both: Both, image: list[RandomLayer]) -> None:
    check(both, image)

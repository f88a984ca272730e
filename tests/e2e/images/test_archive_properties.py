"""Random valid images: the mounted root is, path by path, the one that containerd mounts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
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

from harness.containerd import Choices, Containerd
from harness.host import unmount_below
from harness.image import LayerBuilder, write_layout
from harness.tools import tool
from phantom_cri.images import ImageService
from tests.e2e.images.random_images import RandomLayer, images

pytestmark = pytest.mark.root

PHANTOM = "a name that cannot be opened"
"""A whiteout in a folder that is there once: overlayfs leaves it out of merged folders only. containerd
has them (docker as well); here what hides nothing is not made."""

SETTINGS = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)


class Refused(Exception):
    """containerd does not take the image."""


@dataclass
class Both:
    """An image service and a containerd that take the same archives."""

    folder: Path
    service: ImageService
    runner: asyncio.Runner
    containerd: Containerd
    numbers: Iterator[int] = field(default_factory=count)

    def ours(self, layers: list[bytes]) -> dict[str, Any]:
        """What the root of a container of this image has."""
        with self._image(layers) as (name, archive, target):

            async def load() -> str:
                (image_id,) = await self.service.load(archive)
                return image_id

            made = self.service.snapshot(name, self.runner.run(load()))
            options = f"lowerdir={':'.join(made.lower[:-1])},upperdir={made.upper},workdir={made.work}"
            subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", target], check=True)
            return listing(target)

    def theirs(self, layers: list[bytes]) -> dict[str, Any]:
        """The same of containerd's. Raises Refused."""
        with self._image(layers) as (name, archive, target):
            self._ctr("import", "--local", "--snapshotter", "overlayfs", "--index-name", name, archive)
            self._ctr("mount", "--snapshotter", "overlayfs", "--rw", name, target)
            return {path: what for path, what in listing(target).items() if what != PHANTOM}

    @contextlib.contextmanager
    def _image(self, layers: list[bytes]) -> Iterator[tuple[str, Path, Path]]:
        """A name of its own, an archive of the image, and a place to mount its root at."""
        name = f"image{next(self.numbers)}"
        folder = self.folder / name
        write_layout(folder / "layout", layers, compression="none")
        with tarfile.open(folder / "image.tar", "w") as tar:
            tar.add(folder / "layout", ".")
        (folder / "root").mkdir()
        try:
            yield name, folder / "image.tar", folder / "root"
        finally:
            unmount_below(folder)

    def _ctr(self, *words: object) -> None:
        command = [
            tool("containerd").with_name("ctr"),
            "-a",
            self.containerd.socket,
            "-n",
            "test",
            "images",
            *words,
        ]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Refused(done.stderr)


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
    service = ImageService(root)
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


LOW = LayerBuilder().directory("d").file("d/low", "").file("f", "").symlink("l", "d").finish()


def over(*members: str, kind: bytes = tarfile.REGTYPE, **more: Any) -> list[bytes]:
    """A layer of empty files (folders end with a slash) over LOW; `kind` and `more` are of the last."""
    builder = LayerBuilder()
    for name in members[:-1]:
        builder.directory(name.rstrip("/")) if name.endswith("/") else builder.file(name, "")
    return [LOW, builder.member(members[-1], kind, 0o644, **more).finish()]


DIFFERENT: dict[str, tuple[list[bytes], str, str]] = {  # names below the root here, and in containerd's
    "a folder after its whiteout": (over(".wh.d", "d/", "d/top"), "d d/top f l", "d d/low d/top f l"),
    "a folder after a file": (over("d", "d/", "d/top"), "d d/top f l", "d d/low d/top f l"),
    "a file below its folder's whiteout": (over(".wh.d", "d/top"), "d d/top f l", "refused"),
    "an opaque root": (over(".wh..wh..opq", "top"), "top", "d d/low f l top"),
    "a name through a lower link": (over("l/top"), "d d/low d/top f l", "d d/low f l l/top"),
    "a hard link to a lower file": (
        over("d/", "d/g", kind=tarfile.LNKTYPE, linkname="f"),
        "d d/g d/low f l",
        "refused",
    ),
    "a whiteout of its own layer's": (over("f", ".wh.f"), "d d/low f l", "refused"),
    "a folder with folders and then a file": (over("e/", "e/e/", "e"), "d d/low e f l", "refused"),
    "an unnamed folder where a lower layer has a file": (
        [*over("e"), LayerBuilder().directory("e").file("e/a/x", "").finish()],
        "d d/low e e/a e/a/x f l",
        "refused",
    ),
}


@pytest.mark.parametrize("shape", DIFFERENT)
def test_where_containerd_differs(both: Both, shape: str) -> None:
    """Here: the layers applied one after another, whiteouts for lower ones, the last of equal names."""
    layers, ours, theirs = DIFFERENT[shape]
    assert names_of(both.ours(layers)) == ours
    try:
        assert names_of(both.theirs(layers)) == theirs
    except Refused:
        assert theirs == "refused"


def names_of(found: dict[str, Any]) -> str:
    return " ".join(sorted(found.keys() - {"hard links"}))


def check(both: Both, image: list[RandomLayer]) -> None:
    layers = [layer.archive() for layer in image]
    ours, theirs = both.ours(layers), both.theirs(layers)
    for path in were_folders(image) & ours.keys() & theirs.keys():
        # containerd sets the times of folders last, also where a later entry is no folder any more.
        if not ours[path]["mode"].startswith("d"):
            theirs[path]["time"] = ours[path].get("time")
    assert ours == theirs, [layer.members for layer in image]


def were_folders(image: list[RandomLayer]) -> set[str]:
    members = [member for layer in image for member in layer.members]
    return {posixpath.normpath(name).lstrip("/") for name, kind, _ in members if kind == tarfile.DIRTYPE}


@given(image=images())
@settings(SETTINGS, max_examples=50, phases=[Phase.generate])  # a failure would be made smaller for minutes
def test_as_containerd(both: Both, image: list[RandomLayer]) -> None:
    check(both, image)


@pytest.mark.long
@given(image=images())
@settings(SETTINGS, max_examples=500)
def test_as_containerd_for_long(both: Both, image: list[RandomLayer]) -> None:
    check(both, image)

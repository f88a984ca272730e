"""Reading a stack of layers, and the copy that seeds a volume."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from phantom_cri.errors import FailedPrecondition, InvalidArgument
from phantom_cri.images import rootfs, seed_volume


@pytest.fixture
def layers(tmp_path: Path) -> tuple[str, ...]:
    """Two layers; the upper one hides /d/gone, and all below /opaque."""
    low, top = tmp_path / "low", tmp_path / "top"
    for folder in (low / "d" / "sub", low / "opaque", top / "d", top / "opaque"):
        folder.mkdir(parents=True)
    for path in (low / "d" / "keep", low / "d" / "gone", low / "d" / "sub" / "x", low / "opaque" / "below"):
        path.write_text("low")
    (low / "d" / "sub" / "x").chmod(0o640)
    os.link(low / "d" / "sub" / "x", low / "d" / "sub" / "y")
    (top / "d" / "new").write_text("top")
    os.mknod(top / "d" / "gone", stat.S_IFCHR, 0)
    os.setxattr(top / "opaque", "user.overlay.opaque", b"y")
    (top / "link").symlink_to("/d/keep")
    (top / "climb").symlink_to("../../../d/new")
    (top / "loop").symlink_to("loop")
    (top / "file").write_text("f")
    os.mkfifo(top / "fifo")
    (top / "d" / "abs").symlink_to("/etc/shadow")
    (low / "d").chmod(0o700)
    (top / "d").chmod(0o2755)
    os.utime(top / "d", (5, 5))
    return str(top), str(low)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/d/keep", b"low"),
        ("d/new", b"top"),
        ("/d/./sub/../keep", b"low"),
        ("/link", b"low"),
        ("/climb", b"top"),
        ("/../../d/keep", b"low"),
        ("/d/gone", None),
        ("/opaque/below", None),
        ("/loop", None),
        ("/missing", None),
        ("/file/below", None),
        ("/d", None),
        ("/fifo", None),
        ("/d/abs", None),
    ],
)
def test_read(layers: tuple[str, ...], path: str, content: bytes | None) -> None:
    assert rootfs.read(layers, path) == content


def test_read_is_limited(layers: tuple[str, ...]) -> None:
    with pytest.raises(FailedPrecondition, match="2 are read"):
        rootfs.read(layers, "/d/keep", limit=2)


def test_a_volume_starts_with_what_the_image_shows(layers: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    seed_volume(layers, "/d", str(tmp_path / "volume"))
    volume = tmp_path / "volume"
    assert {path.name for path in volume.iterdir()} == {"keep", "new", "sub", "abs"}
    assert (volume.stat().st_mode & 0o7777, volume.stat().st_mtime) == (0o2755, 5)
    assert (volume / "abs").readlink() == Path("/etc/shadow")
    x, y = (volume / "sub" / "x").stat(), (volume / "sub" / "y").stat()
    assert x.st_ino == y.st_ino
    assert stat.S_IMODE(x.st_mode) == 0o640
    assert x.st_ino != os.stat(f"{layers[1]}/d/sub/x").st_ino


@pytest.mark.parametrize("path", ["/missing", "/d/gone"])
def test_a_volume_without_a_folder_in_the_image_is_empty(
    layers: tuple[str, ...], tmp_path: Path, path: str
) -> None:
    (tmp_path / "volume").mkdir()
    seed_volume(layers, path, str(tmp_path / "volume"))
    assert list((tmp_path / "volume").iterdir()) == []


def test_a_volume_over_a_file_is_refused(layers: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    with pytest.raises(InvalidArgument, match=r"image\.volumes.*'/file'"):
        seed_volume(layers, "/file", str(tmp_path / "volume"))

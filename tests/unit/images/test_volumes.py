"""What a mount of an image stacks: sub paths that stay inside, whatever the image does with links."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from phantom_cri.errors import FailedPrecondition, NotFound
from phantom_cri.images.volumes import stack

EMPTY = "/empty"


@pytest.fixture
def layers(tmp_path: Path) -> tuple[str, ...]:
    low, top = tmp_path / "low", tmp_path / "top"
    for folder in (low / "both", low / "only", low / "opaque", top / "both", top / "opaque"):
        folder.mkdir(parents=True)
    (low / "both" / "file").write_text("low")
    os.mknod(top / "both" / "gone", stat.S_IFCHR, 0)
    (low / "both" / "gone").mkdir()
    os.setxattr(top / "opaque", "user.overlay.opaque", b"y")
    for name, target in {
        "out": "../../../../../../etc",
        "absolute": "/etc",
        "inside": "/../both/./file",
        "loop": "loop",
        "proc": "/proc/self/root",
    }.items():
        (top / name).symlink_to(target)
    os.mkfifo(top / "fifo")
    return str(top), str(low)


@pytest.mark.parametrize(
    "path", ["missing", "both/gone", "both/file/x", "out", "absolute/passwd", "loop", "proc"]
)
def test_what_is_not_in_the_image_is_not_found(layers: tuple[str, ...], path: str) -> None:
    with pytest.raises(NotFound, match="does not exist in the image"):
        stack(layers, path, EMPTY)


def test_neither_folder_nor_file(layers: tuple[str, ...]) -> None:
    with pytest.raises(FailedPrecondition, match="'fifo' is neither a folder nor a regular file"):
        stack(layers, "fifo", EMPTY)
    with pytest.raises(FailedPrecondition, match="artifact"):
        stack((), "", EMPTY)


def test_stacks(layers: tuple[str, ...]) -> None:
    top, low = layers
    assert stack(layers, "", EMPTY) == (top, low)
    assert stack(layers, "./both//", EMPTY) == (f"{top}/both", f"{low}/both")
    assert stack(layers, "inside", EMPTY) == (f"{low}/both/file",)
    assert stack(layers, "both/file", EMPTY) == (f"{low}/both/file",)


def test_a_lone_folder_is_stacked_on_nothing(layers: tuple[str, ...]) -> None:
    """Else its whiteouts would be seen, as devices."""
    top, low = layers
    assert stack(layers, "only", EMPTY) == (f"{low}/only", EMPTY)
    assert stack(layers, "opaque", EMPTY) == (f"{top}/opaque", EMPTY)
    assert stack((low,), "", EMPTY) == (low, EMPTY)

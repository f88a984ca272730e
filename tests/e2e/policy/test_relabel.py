"""Labels of files are extended attributes: root sets them on any kernel, SELinux or not."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from phantom_cri.errors import Internal, InvalidArgument, ResourceExhausted
from phantom_cri.policy import selinux_files

pytestmark = pytest.mark.root

LABEL = "system_u:object_r:container_file_t:s0:c1,c2"
OTHER = "system_u:object_r:container_file_t:s0:c3,c4"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    volume = tmp_path / "volume"
    (volume / "a/b").mkdir(parents=True)
    (volume / "a/b/file").touch()
    os.mkfifo(volume / "a/fifo")
    (volume / "link").symlink_to("../outside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").touch()
    return volume


def label_of(path: Path) -> str:
    """Of the path itself."""
    try:
        return os.getxattr(path, "security.selinux", follow_symlinks=False).rstrip(b"\0").decode()
    except OSError:
        return ""


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/usr/", "/usr/lib/../lib", "/proc/self/root", "/proc", "/sys/kernel", "/dev/shm"]
)
def test_the_hosts_own_stay_as_they_are(path: str, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    before = label_of(Path(path))
    for way in (path, str(link)):
        with pytest.raises(InvalidArgument, match=r"mounts\[3\]: .* belongs to the host"):
            selinux_files.relabel(way, LABEL, "mounts[3]")
    assert label_of(Path(path)) == before


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Internal, match=r"mounts\[0\]: open .*/nothing: ENOENT"):
        selinux_files.relabel(str(tmp_path / "nothing"), LABEL, "mounts[0]")


def test_all_below_and_nothing_beside(volume: Path) -> None:
    selinux_files.relabel(str(volume), LABEL, "f")
    assert {label_of(path) for path in (volume, *volume.rglob("*"))} == {LABEL}
    outside = volume.parent / "outside"
    assert LABEL not in {label_of(outside), label_of(outside / "file"), label_of(volume.parent)}


def test_a_file_alone(volume: Path) -> None:
    selinux_files.relabel(str(volume / "a/b/file"), LABEL, "f")
    assert label_of(volume / "a/b/file") == LABEL
    assert label_of(volume / "a/b") != LABEL


def test_where_the_top_has_it_all_has(volume: Path) -> None:
    selinux_files.relabel(str(volume), LABEL, "f")
    selinux_files.label(str(volume / "a"), OTHER)
    selinux_files.relabel(str(volume), LABEL, "f")
    assert label_of(volume / "a") == OTHER
    selinux_files.relabel(str(volume), OTHER, "f")
    assert {label_of(path) for path in (volume, *volume.rglob("*"))} == {OTHER}


def test_too_deep_leaves_the_top_for_another_try(volume: Path) -> None:
    before, fds = label_of(volume), len(os.listdir("/proc/self/fd"))
    (volume / "/".join(["deep"] * 300)).mkdir(parents=True)
    with pytest.raises(ResourceExhausted, match=r"f: .* folders deep"):
        selinux_files.relabel(str(volume), LABEL, "f")
    assert label_of(volume) == before
    assert len(os.listdir("/proc/self/fd")) == fds


@pytest.fixture
def swapping(volume: Path) -> Iterator[Path]:
    """A folder of the volume that is a link out of it half of the time."""
    end = threading.Event()
    folder, link, spare = volume / "swapped", volume / "l", volume / "f"

    def swap() -> None:
        folder.mkdir()
        while not end.is_set():
            os.rename(folder, spare)
            link.symlink_to("../outside")
            os.rename(link, folder)
            os.unlink(folder)
            os.rename(spare, folder)

    thread = threading.Thread(target=swap)
    thread.start()
    yield volume
    end.set()
    thread.join()


def test_a_container_that_swaps_folders_for_links(swapping: Path) -> None:
    for label in (LABEL, OTHER) * 20:
        selinux_files.relabel(str(swapping), label, "f")
    outside = swapping.parent / "outside"
    assert not {LABEL, OTHER} & {label_of(outside), label_of(outside / "file")}

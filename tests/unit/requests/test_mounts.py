from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from phantom_cri import codec
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import ImageConfig, ImageMount, ImageSpec
from phantom_cri.plans import constants
from phantom_cri.plans.spec import Bind
from phantom_cri.requests.mountinfo import HostMount, find
from phantom_cri.requests.mounts import anonymous_volumes, binds, check_propagation, volume_folder
from tests.unit.requests.asked import container, mount


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("a", "/data", r"mounts\[0\].host_path: 'a' is not an absolute path"),
        ("", "/data", r"mounts\[0\].host_path: ''"),
        ("/a", "/data\0", "NUL"),
        ("/a", "//", "is the container's root"),
        ("/a", "/data/..", "is the container's root"),
        ("/a", "..", "is the container's root"),
        ("/a", "/x/../proc", "only the host's /proc"),
        ("/proc/../etc", "/proc", "only the host's /proc"),
        ("/a", "/x/..//proc/self/attr", "inside /proc"),
        ("/a", "/proc", "only the host's /proc"),
        ("/a", "/proc/self/attr", "inside /proc"),
        ("/a", "/" + "x" * 5000, "longer than 4095 bytes"),
    ],
)
def test_impossible_paths_are_named(source: str, target: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        binds(container(mounts=(mount(source, target),)))


@pytest.mark.parametrize(
    ("target", "cleaned"),
    [
        ("//data//x/", "/data/x"),
        ("/data/./y", "/data/y"),
        ("/data/../etc2", "/etc2"),
        ("/../../up", "/up"),
        ("/proc/../data", "/data"),
        ("relative/x", "/relative/x"),
    ],
)
def test_container_paths_are_cleaned_and_host_paths_left_to_the_kernel(target: str, cleaned: str) -> None:
    (bind,) = binds(container(mounts=(mount("/a/../b//", target),)))
    assert (bind.source, bind.target) == ("/a/../b//", cleaned)


@pytest.mark.parametrize(
    "fields",
    [
        {"recursive_read_only": True},
        {"recursive_read_only": True, "readonly": True, "propagation": "host_to_container"},
        {"recursive_read_only": True, "readonly": True, "propagation": "bidirectional"},
    ],
)
def test_recursive_read_only_conflicts(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=r"RROUnsupported: mounts\[0\].recursive_read_only"):
        binds(container(mounts=(mount("/a", "/b", **fields),)))


def test_a_mount_on_no_path() -> None:
    with pytest.raises(InvalidArgument, match=r"mounts\[0\].container_path: must not be empty"):
        binds(container(mounts=(mount("/a", ""),)))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "readonly"),
        ({"readonly": True, "host_path": "/a"}, "host_path: '/a' cannot be combined with an image"),
        ({"readonly": True, "propagation": "bidirectional"}, "propagation: 'bidirectional'"),
        ({"readonly": True, "image_sub_path": "/etc"}, "image_sub_path: '/etc' is absolute"),
        ({"readonly": True, "image_sub_path": "a/.."}, "image_sub_path: 'a/..' is absolute or has a \"..\""),
        ({"readonly": True, "container_path": "/proc/sys"}, "inside /proc"),
        ({"readonly": True, "container_path": "/b/.."}, "is the container's root"),
    ],
)
def test_impossible_mounts_of_images(fields: dict[str, Any], words: str) -> None:
    asked = codec.replace(mount("", "/b", image=ImageSpec(image="i")), **fields)
    with pytest.raises(InvalidArgument, match=rf"ImageVolumeMountFailed: mounts\[0\].*{re.escape(words)}"):
        binds(container(mounts=(asked,)))


def test_mounts_of_images() -> None:
    """Each takes the next of what the images came to; without these they are checked all the same."""
    first, last = (mount("", path, readonly=True, image=ImageSpec(image="i")) for path in ("/b", "/c"))
    config = container(mounts=(first, mount("/a", "/a"), last))
    found = binds(config, (ImageMount("one", ("/1", "/2"), ()), ImageMount("two", ("/3",), ())))
    assert [bind.stack for bind in found] == [("/1", "/2"), (), ("/3",)]
    assert [bind.attributes for bind in found] == [
        constants.MOUNT_ATTR_RDONLY,
        0,
        constants.MOUNT_ATTR_RDONLY,
    ]
    assert [bind.stack for bind in binds(config)] == [(), (), ()]


def test_binds() -> None:
    config = container(
        mounts=(
            mount("/a", "/x/"),
            mount("/b/", "//y", readonly=True, propagation="host_to_container"),
            mount("/c", "/z", readonly=True, recursive_read_only=True),
            mount("/d", "/proc/meminfo", propagation="bidirectional"),
        )
    )
    how, create = constants.OPEN_RECURSIVE | constants.OPEN_CREATE, constants.ATTACH_CREATE
    read_only = constants.MOUNT_ATTR_RDONLY
    assert binds(config) == (
        Bind("/a", "/x", how, 0, constants.MS_PRIVATE, create),
        Bind("/b/", "/y", how, read_only, constants.MS_SLAVE, create),
        Bind("/c", "/z", how, read_only, constants.MS_PRIVATE, create | constants.ATTACH_RECURSIVE),
        Bind("/d", "/proc/meminfo", how, 0, constants.MS_SHARED, create),
    )


@pytest.mark.parametrize(
    ("propagation", "shared", "slave", "words"),
    [
        ("bidirectional", False, False, 'is mounted on "/m" but it is not a shared mount'),
        ("bidirectional", False, True, 'is mounted on "/m" but it is not a shared mount'),
        ("host_to_container", False, False, 'is mounted on "/m" but it is not a shared or slave mount'),
        ("bidirectional", True, False, ""),
        ("host_to_container", True, False, ""),
        ("host_to_container", False, True, ""),
        ("private", False, False, ""),
    ],
)
def test_propagation_needs_a_fitting_mount(
    tmp_path: Path, propagation: str, shared: bool, slave: bool, words: str
) -> None:
    config = container(mounts=(mount(str(tmp_path), "/b", propagation=propagation),))
    if not words:
        check_propagation(config, lambda path: HostMount("/m", shared, slave))
        return
    with pytest.raises(InvalidArgument, match=words):
        check_propagation(config, lambda path: HostMount("/m", shared, slave))


def test_private_sources_are_not_looked_at(tmp_path: Path) -> None:
    config = container(mounts=(mount(str(tmp_path / "made later"), "/b"),))
    check_propagation(config, lambda path: pytest.fail(f"looked at {path}"))


def test_propagation_follows_symlinks_to_the_mount(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    asked: list[str] = []

    def holding(path: str) -> HostMount:
        asked.append(path)
        return HostMount("/", True, False)

    link = str(tmp_path / "link")
    check_propagation(container(mounts=(mount(link, "/b", propagation="bidirectional"),)), holding)
    assert asked == [str((tmp_path / "real").resolve())]


TABLE = rb"""21 1 8:1 / / rw,relatime - ext4 /dev/vda rw
22 21 0:5 / /mnt/a\040b rw shared:7 - tmpfs t rw
23 22 0:6 / /mnt/a\040b/deep rw master:7 - tmpfs t rw
24 21 0:7 / /mnt/twice rw - tmpfs t rw
25 24 0:8 / /mnt/twice rw shared:9 master:1 propagate_from:2 - tmpfs t rw
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", HostMount("/", False, False)),
        ("/mnt/a", HostMount("/", False, False)),
        ("/mnt/a b", HostMount("/mnt/a b", True, False)),
        ("/mnt/a b/x", HostMount("/mnt/a b", True, False)),
        ("/mnt/a b/deep/x", HostMount("/mnt/a b/deep", False, True)),
        ("/mnt/a b/deeper", HostMount("/mnt/a b", True, False)),
        ("/mnt/twice", HostMount("/mnt/twice", True, True)),
    ],
)
def test_the_mount_below_a_path(path: str, expected: HostMount) -> None:
    assert find(TABLE, path) == expected


def test_anonymous_volumes_are_those_that_nothing_covers() -> None:
    image = ImageConfig(volumes=("/data", "/var/lib/db", "cache", "/logs/"))
    config = container(mounts=(mount("/a", "/var/lib"), mount("/b", "/logs")))
    assert anonymous_volumes(binds(config), image) == ("/data", "/cache")
    assert anonymous_volumes(binds(config), ImageConfig(volumes=("/../etc",))) == ("/etc",)
    with pytest.raises(InvalidArgument, match=r"image\.volumes"):
        anonymous_volumes(binds(config), ImageConfig(volumes=("/data/..",)))
    with pytest.raises(InvalidArgument, match=r"image\.volumes"):
        anonymous_volumes(binds(config), ImageConfig(volumes=("/proc/sys",)))


def test_volume_folders_do_not_collide() -> None:
    assert volume_folder("/a/b") == "volume%2Fa%2Fb"
    assert len({volume_folder(path) for path in ("/a/b", "/a%2Fb", "/a%252Fb")}) == 3

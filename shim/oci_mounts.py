"""The mounts of an OCI spec: those that plans have ready for every container, and those that are given."""

from __future__ import annotations

from typing import NamedTuple

from phantom_cri import plans
from phantom_cri.errors import InvalidArgument
from shim import document

CGROUP = "/sys/fs/cgroup"
_HARMLESS = frozenset({"nosuid", "noexec", "nodev"})
_USUAL = {
    "/proc": ("proc", _HARMLESS),
    "/dev": ("tmpfs", frozenset({"nosuid", "mode=755", "size=65536k"})),
    "/dev/pts": ("devpts", frozenset({"nosuid", "noexec", "ptmxmode=0666", "mode=0620", "gid=5"})),
    "/dev/mqueue": ("mqueue", _HARMLESS),
    "/sys": ("sysfs", _HARMLESS),
    CGROUP: ("cgroup", _HARMLESS),
}
"""What plans make by themselves at these places, as containerd and runc write it."""

_SAYS_NOTHING = frozenset({"relatime", "strictatime", "newinstance", "rw", "ro", "private", "rprivate"})
"""Of the usual mounts; `ro` counts at /sys and in it, and is looked at for itself."""

POINTS = (*_USUAL, "/dev/shm")  # noqa: S108 - mount points in the container


class Mounts(NamedTuple):
    """As `plans.ContainerSpec` has them. is_writable: /sys and cgroups are; has_cgroup: they are in sight."""

    given: tuple[plans.GivenMount, ...]
    replaced: tuple[str, ...]
    is_writable: bool
    has_cgroup: bool


def mounts_of(wanted: tuple[document.Mount, ...]) -> Mounts:
    """Raises InvalidArgument naming the mount's index, its place and what cannot be."""
    given: list[plans.GivenMount] = []
    writable: dict[str, bool] = {}
    for index, mount in enumerate(wanted):
        place = "/" + mount.destination.strip("/")
        field = f"mounts[{index}] at {mount.destination!r}"
        if not mount.destination.startswith("/") or ".." in place.split("/") or place == "/":
            raise InvalidArgument(f"{field}: want an absolute path below the root")
        if _is_usual(mount, place):
            writable[place] = "ro" not in mount.options
        elif place in ("/dev", CGROUP) and not _is_bind(mount):
            raise InvalidArgument(
                f"{field}: type {mount.type!r} with {list(mount.options)}: not supported here"
            )
        else:
            writable.pop(place, None)
            given.append(plans.GivenMount(mount.type, mount.source, place, mount.options))
    if writable.get(CGROUP, writable.get("/sys", False)) != writable.get("/sys", False):
        raise InvalidArgument(f"mounts: {CGROUP} and /sys: one read-only and one not is not supported")
    replaced = tuple(point for point in POINTS if point not in writable)
    return Mounts(tuple(given), replaced, writable.get("/sys", False), CGROUP in writable)


def _is_bind(mount: document.Mount) -> bool:
    return mount.type == "bind" or not {"bind", "rbind"}.isdisjoint(mount.options)


def _is_usual(mount: document.Mount, place: str) -> bool:
    usual = _USUAL.get(place)
    if usual is None or mount.type.removesuffix("2" * (place == CGROUP)) != usual[0]:
        return False
    if "ro" in mount.options and place not in ("/sys", CGROUP):
        return False
    return frozenset(mount.options) - _SAYS_NOTHING == usual[1]


def root_of(rootfs: tuple[plans.GivenMount, ...], root: document.Root, bundle: str) -> plans.MountRoot:
    """The mounts that containerd's snapshotter gave; without any, the folder that the spec names."""
    if rootfs:
        return plans.MountRoot(rootfs)
    path = root.path if root.path.startswith("/") else f"{bundle}/{root.path}"
    return plans.MountRoot((plans.GivenMount("bind", path, "", ("rbind",)),))

"""The standard file systems of every container, as blocks that are encoded once for each shape.

A mount of the request replaces the standard ones at or below its path: those would be hidden, or, worse, be
attached inside a volume.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from phantom_cri.plans import constants
from phantom_cri.plans.ops import Attach, NewFs, OpenTree, Remount, Root, Symlink
from phantom_cri.plans.plan import Block

_NOSUID = constants.MOUNT_ATTR_NOSUID
_HARMLESS = _NOSUID | constants.MOUNT_ATTR_NODEV | constants.MOUNT_ATTR_NOEXEC

CGROUP = "/sys/fs/cgroup"
SHM = "/dev/shm"  # noqa: S108 - a mount point in the container
FRAGMENT_SHM = "/shm"


TERMINALS = 5
"""Group of the ptys: "tty" on every distribution."""

TEMPLATE = "/rootfs"
"""Where a warm fragment keeps its prepared mounts (native/fragment_root.h)."""

TEMPLATE_MOUNTS = ("/dev", "/sys")
"""Mounts that can be prepared before the container is known, each with all its submounts."""

_TEMPLATE_POINTS = frozenset({"/dev", "/dev/pts", "/dev/mqueue", SHM, "/sys"})


class Standard(NamedTuple):
    """`sources` fills `used` slots from the first; `attach` attaches them to the root."""

    sources: Block
    attach: Block
    used: int
    has_dev: bool
    has_cgroup: bool


class Shape(NamedTuple):
    """The parameters in which containers' standard mounts differ."""

    privileged: bool
    host_ipc: bool
    cgroup: str  # "v1", "v2" or ""
    covered: tuple[str, ...]  # standard mount points covered by the request's mounts
    terminals: int | None = TERMINALS  # a host id; None: the user namespace lacks the group


def _file_systems(shape: Shape) -> Iterable[tuple[str, NewFs | OpenTree]]:
    """Mount point and source, parents first; slots are set by the caller."""
    view = 0 if shape.privileged else constants.MOUNT_ATTR_RDONLY
    yield "/proc", NewFs(0, "proc", (), _HARMLESS)
    dev = ("mode=755", "size=65536k")
    yield "/dev", NewFs(0, "tmpfs", dev, _NOSUID | constants.MOUNT_ATTR_STRICTATIME)
    # Each mount of devpts is a new instance, whatever its options.
    pts = ("ptmxmode=0666", "mode=0620", *([] if shape.terminals is None else [f"gid={shape.terminals}"]))
    yield "/dev/pts", NewFs(0, "devpts", pts, _NOSUID | constants.MOUNT_ATTR_NOEXEC)
    yield "/dev/mqueue", NewFs(0, "mqueue", (), _HARMLESS)
    if not shape.host_ipc:
        yield SHM, OpenTree(0, FRAGMENT_SHM)
    yield "/sys", NewFs(0, "sysfs", (), _HARMLESS | view)
    if shape.cgroup == "v2":
        yield CGROUP, NewFs(0, "cgroup2", (), _HARMLESS | view)
    elif shape.cgroup == "v1":
        yield CGROUP, NewFs(0, "tmpfs", ("mode=755",), _HARMLESS)


MOUNT_POINTS = ("/proc", "/dev", "/dev/pts", "/dev/mqueue", SHM, "/sys", CGROUP)


def fits_template(shape: Shape) -> bool:
    """Whether a container's /dev and /sys are the usual ones, as in the template."""
    return not (shape.privileged or shape.host_ipc or shape.covered)


@lru_cache(maxsize=8)
def template_mounts(first_slot: int) -> tuple[Block, Block]:
    """The ops that make the template, except the nodes of /dev: its sources, and their attachment."""
    shape = Shape(privileged=False, host_ipc=False, cgroup="", covered=("/proc",))
    root = NewFs(first_slot, "tmpfs", ("mode=755", "size=64k"), _NOSUID)
    standard = standard_mounts(shape, first_slot + 1)
    return Block(root, *standard.sources.ops), Block(Root(first_slot), *standard.attach.ops)


@lru_cache(maxsize=64)
def taken_mounts(first_slot: int) -> tuple[Block, Block]:
    """The ops that use the template's mounts: before the container's ROOT, and after it."""
    slots = range(first_slot, first_slot + len(TEMPLATE_MOUNTS))
    pairs = list(zip(slots, TEMPLATE_MOUNTS, strict=True))
    return (
        Block(*[OpenTree(slot, TEMPLATE + point, constants.OPEN_RECURSIVE) for slot, point in pairs]),
        Block(*[Attach(slot, point, 0, 0, constants.ATTACH_CREATE) for slot, point in pairs]),
    )


@lru_cache(maxsize=64)
def standard_mounts(shape: Shape, first_slot: int, taken: bool = False) -> Standard:
    """`taken`: without the mounts of the template."""
    sources: list[NewFs | OpenTree] = []
    attach: list[Attach] = []
    points = set()
    for point, source in _file_systems(shape):
        if point in shape.covered or (taken and point in _TEMPLATE_POINTS):
            continue
        slot = first_slot + len(sources)
        sources.append(_with_slot(source, slot))
        attach.append(Attach(slot, point, 0, 0, constants.ATTACH_CREATE))
        points.add(point)
    return Standard(Block(*sources), Block(*attach), len(sources), "/dev" in points, CGROUP in points)


def _with_slot(source: NewFs | OpenTree, slot: int) -> NewFs | OpenTree:
    if isinstance(source, NewFs):
        return NewFs(slot, source.type, source.options, source.attributes)
    return OpenTree(slot, source.path, source.flags)


def cgroup_attributes(privileged: bool) -> int:
    return _HARMLESS if privileged else _HARMLESS | constants.MOUNT_ATTR_RDONLY


@lru_cache(maxsize=64)
def finished_cgroup(links: tuple[tuple[str, str], ...], privileged: bool) -> Block:
    """When the v1 hierarchies are attached to their tmpfs: add `links` (name, target), make it read-only."""
    made = [Symlink(target, f"{CGROUP}/{name}") for name, target in links]
    return Block(*made, Remount(CGROUP, cgroup_attributes(privileged)))

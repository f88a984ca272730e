"""Detects the node's cgroup version from its mounts, and checks that it can be used."""

from __future__ import annotations

import os
from pathlib import Path

from phantom_cri.cgroups.base import Cgroups
from phantom_cri.cgroups.tree import Tree
from phantom_cri.cgroups.v1 import CpusetTree, V1Cgroups
from phantom_cri.cgroups.v2 import V2Cgroups
from phantom_cri.errors import FailedPrecondition, Unavailable

MOUNT_POINT = Path("/sys/fs/cgroup")
# v1 hierarchies without a controller; systemd tracks its services in one.
_BOOTED = Path("/run/systemd/system")  # sd_booted(3)
_NAMED = frozenset({"systemd", "elogind", "openrc"})


def detect(root: Path = MOUNT_POINT) -> Cgroups:
    """The node's cgroups. Raises FailedPrecondition: none mounted, or v2 without cgroup.kill."""
    if (root / "cgroup.controllers").is_file():
        return V2Cgroups(_unified(root))
    try:
        folders = sorted(entry.path for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError as error:
        raise FailedPrecondition(f"cgroups: {root} does not exist") from error
    trees: list[Tree] = []
    unified: Tree | None = None
    try:
        for folder in folders:
            if os.path.isfile(f"{folder}/cgroup.controllers"):
                unified = _unified(Path(folder))
            elif os.path.isfile(f"{folder}/cgroup.procs"):
                trees.append(_hierarchy(folder))
        if not any(tree.controllers for tree in trees):
            raise FailedPrecondition(f"cgroups: no controller is mounted below {root}")
        if not trees[0].has(".", "tasks"):
            raise FailedPrecondition(f"cgroups: {trees[0].root} has no 'tasks' file, so it is not cgroup v1")
    except BaseException:
        for tree in (*trees, *filter(None, [unified])):
            tree.close()
        raise
    return V1Cgroups(trees, unified)


async def detect_systemd(root: Path = MOUNT_POINT) -> Cgroups:
    """The node's cgroups, managed by systemd. Raises FailedPrecondition naming what is missing."""
    _require_systemd(root)
    from phantom_cri.cgroups.systemd import SystemdCgroups  # imports the D-Bus library only if needed
    from phantom_cri.cgroups.units import Units

    units = Units()
    try:
        await units.connect()
    except Unavailable as error:
        raise FailedPrecondition(f"cgroup.driver systemd: {error}") from error
    return SystemdCgroups(_unified(root), units)


def _require_systemd(root: Path) -> None:
    if not _BOOTED.is_dir():
        raise FailedPrecondition(
            f"cgroup.driver systemd: this host was not booted with systemd ({_BOOTED} is missing)"
        )
    if not (root / "cgroup.controllers").is_file():
        raise FailedPrecondition(
            f"cgroup.driver systemd: needs cgroup v2 alone, and {root} has v1 hierarchies: use cgroupfs"
        )


def _hierarchy(folder: str) -> Tree:
    """Controllers that share a hierarchy share its folder's name: `cpu,cpuacct`."""
    controllers = frozenset(os.path.basename(folder).split(",")) - _NAMED
    return (CpusetTree if "cpuset" in controllers else Tree)(folder, controllers)


def _unified(folder: Path) -> Tree:
    controllers = frozenset((folder / "cgroup.controllers").read_text().split())
    tree = Tree(str(folder), controllers)
    try:
        _require_kill(tree)
    except BaseException:
        tree.close()
        raise
    return tree


def _require_kill(tree: Tree) -> None:
    """The root has no cgroup.kill, but every other cgroup has: a temporary one is created to check."""
    probe = f"phantom-probe-{os.getpid()}"
    try:
        tree.mkdir(probe)
    except OSError as error:
        raise FailedPrecondition(f"cgroups: {tree.root} cannot be written: {error.strerror}") from error
    try:
        if not tree.has(probe, "cgroup.kill"):
            raise FailedPrecondition(f"cgroups: {tree.root}: no cgroup.kill (Linux before 5.14)")
    finally:
        tree.rmdir(probe)

"""A test's own cgroups, in every hierarchy of the host: v2, v1 or both."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from harness.waiting import wait_until

MOUNT = Path("/sys/fs/cgroup")


def hierarchies() -> list[Path]:
    """The root of each hierarchy; without symbolic links to another one (cpu,cpuacct)."""
    if (MOUNT / "cgroup.controllers").exists():
        return [MOUNT]
    return [folder for folder in MOUNT.iterdir() if folder.is_dir() and not folder.is_symlink()]


def groups_below(name: str) -> Iterator[Path]:
    """`name` (as in `/phantom-x`) and all groups below it, deepest first, in each hierarchy."""
    for hierarchy in hierarchies():
        for folder, _, _ in os.walk(hierarchy / name.strip("/"), topdown=False):
            yield Path(folder)


def processes_in(name: str) -> set[int]:
    """Pids in `name` and all groups below it."""
    pids: set[int] = set()
    for group in groups_below(name):
        with contextlib.suppress(OSError):
            pids.update(int(pid) for pid in (group / "cgroup.procs").read_text().split())
    return pids


def remove_cgroups(name: str) -> None:
    """Kills all processes in `name` and removes it with all groups below, in each hierarchy."""

    def emptied() -> bool:
        for pid in (pids := processes_in(name)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    wait_until(emptied, f"the processes in cgroup {name} to end")
    for group in groups_below(name):
        with contextlib.suppress(OSError):
            group.rmdir()

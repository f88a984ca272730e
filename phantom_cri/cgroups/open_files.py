"""Open files of a cgroup's processes and their limit, from /proc: no controller counts them."""

from __future__ import annotations

import os
from collections.abc import Iterable

MOST_FILES = 10_000
"""Most open files counted for one cgroup, so that a process with a million cannot delay the others."""


def count_open_files(pids: Iterable[int]) -> tuple[int, int]:
    """(open files, sockets among them), of at most MOST_FILES. Processes that end meanwhile count as none."""
    files = sockets = 0
    for pid in pids:
        try:
            folder = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:  # it has ended, or access is denied
            continue
        try:
            names = os.listdir(folder)[: MOST_FILES - files]
            files += len(names)
            sockets += sum(_is_socket(folder, name) for name in names)
        except OSError:
            continue
        finally:
            os.close(folder)
        if files >= MOST_FILES:
            break
    return files, sockets


def _is_socket(folder: int, name: str) -> bool:
    try:
        return os.readlink(name, dir_fd=folder).startswith("socket:")
    except OSError:
        return False


def open_files_limit(pid: int) -> int | None:
    """The soft limit of open files; None for a process that is gone."""
    try:
        with open(f"/proc/{pid}/limits") as file:
            line = next((line for line in file if line.startswith("Max open files")), "")
    except OSError:
        return None
    soft = line.removeprefix("Max open files").split()[:1]
    return int(soft[0]) if soft and soft[0].isdecimal() else None

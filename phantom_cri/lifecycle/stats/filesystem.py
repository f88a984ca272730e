"""The filesystem of the writable layers: its device and free space."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import NamedTuple


class Filesystem(NamedTuple):
    """Bytes and inodes; `device` as `device_name`."""

    device: str
    major: int
    minor: int
    size: int
    inodes: int
    inodes_free: int


def filesystem_of(path: str) -> Filesystem:
    """Raises OSError."""
    found = os.statvfs(path)
    device = os.stat(path).st_dev
    major, minor = os.major(device), os.minor(device)
    return Filesystem(
        device=device_name(major, minor),
        major=major,
        minor=minor,
        size=found.f_blocks * found.f_frsize,
        inodes=found.f_files,
        inodes_free=found.f_favail,
    )


@lru_cache(maxsize=256)
def device_name(major: int, minor: int) -> str:
    """`/dev/vda1`; `major:minor` for a filesystem without a device of its own (btrfs, tmpfs)."""
    try:
        link = os.readlink(f"/sys/dev/block/{major}:{minor}")
    except OSError:
        return f"{major}:{minor}"
    return f"/dev/{os.path.basename(link)}"

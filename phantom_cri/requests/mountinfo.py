"""Mounts as the kernel lists them (proc_pid_mountinfo(5))."""

from __future__ import annotations

import re
from typing import NamedTuple

from phantom_cri.requests.paths import covers

_OCTAL = re.compile(rb"\\([0-7]{3})")


class HostMount(NamedTuple):
    path: str
    shared: bool
    slave: bool


def mount_holding(path: str) -> HostMount | None:
    """The mount in our mount namespace that contains the resolved path `path`."""
    with open("/proc/self/mountinfo", "rb") as table:
        return find(table.read(), path)


def find(table: bytes, path: str) -> HostMount | None:
    """The deepest mount that contains `path`; of several on one place the last, which covers the others."""
    found = None
    for line in table.splitlines():
        fields = line.split(b" ")
        where = _path(fields[4])
        if covers(where, path) and (found is None or len(where) >= len(found.path)):
            optional = fields[6 : fields.index(b"-", 6)]
            shared = any(field.startswith(b"shared:") for field in optional)
            found = HostMount(where, shared, any(field.startswith(b"master:") for field in optional))
    return found


def parts_mounted(pid: int) -> list[str]:
    """A process's mount points of parts of file systems (bind mounts), without "/". Raises OSError."""
    with open(f"/proc/{pid}/mountinfo", "rb") as table:
        lines = [line.split(b" ") for line in table]
    return [_path(fields[4]) for fields in lines if fields[3] != b"/" and fields[4] != b"/"]


def _path(field: bytes) -> str:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field).decode("utf-8", "surrogateescape")

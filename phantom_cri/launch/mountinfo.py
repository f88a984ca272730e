"""The host's mounts, as far as propagation asks for them (proc_pid_mountinfo(5))."""

from __future__ import annotations

import re
from typing import NamedTuple

from phantom_cri.launch.paths import covers

_OCTAL = re.compile(rb"\\([0-7]{3})")


class HostMount(NamedTuple):
    path: str
    shared: bool
    slave: bool


def mount_holding(path: str) -> HostMount | None:
    """The mount that the resolved path `path` lies on in our mount namespace."""
    with open("/proc/self/mountinfo", "rb") as table:
        return find(table.read(), path)


def find(table: bytes, path: str) -> HostMount | None:
    """The deepest mount over `path`; of several on one place the last, which covers the others."""
    found = None
    for line in table.splitlines():
        fields = line.split(b" ")
        where = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), fields[4]).decode(
            "utf-8", "surrogateescape"
        )
        if covers(where, path) and (found is None or len(where) >= len(found.path)):
            optional = fields[6 : fields.index(b"-", 6)]
            shared = any(field.startswith(b"shared:") for field in optional)
            found = HostMount(where, shared, any(field.startswith(b"master:") for field in optional))
    return found

"""Descriptors that live as long as a pod are kept out of the low numbers.

Libraries that wait by select(2), libnftables among them, cannot use a descriptor of 1024 or more, and a node
with many pods would fill those below.
"""

from __future__ import annotations

import fcntl
import os

FIRST = 1024  # FD_SETSIZE, select(2)


def moved_up(fd: int) -> int:
    """The same open file at a number of 1024 or more, `fd` closed; as it was where the limit is too low."""
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST)
    except OSError:  # EINVAL: RLIMIT_NOFILE is no higher; EMFILE: all of those are taken too
        return fd
    os.close(fd)
    return high

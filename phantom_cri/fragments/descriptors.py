"""Moves descriptors that live as long as a pod to high numbers.

Libraries that use select(2), such as libnftables, need descriptors below 1024, and the fds of many pods would
use all of them.
"""

from __future__ import annotations

import fcntl
import os

FIRST = 1024  # FD_SETSIZE, select(2)


def moved_up(fd: int) -> int:
    """The same open file at a number of 1024 or more, `fd` closed; or `fd` if the limit is too low."""
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST)
    except OSError:  # EINVAL: RLIMIT_NOFILE is too low; EMFILE: no free fd
        return fd
    os.close(fd)
    return high

"""Fragments without a folder: the state directory was cleared while they ran.

Their sockets are gone, so they can neither be queried nor stopped by a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Set

from phantom_cri.lifecycle.runtime import Runtime, log

_DEATH_S = 10.0
_DELETED = " (deleted)"


async def end_strays(runtime: Runtime, known: Set[int]) -> None:
    """Kill every fragment of ours that is not one of the `known` pids, and with it its pod's processes.

    Ours: in our fragments' cgroup, with an open fd of a deleted pod folder below our state directory.
    """
    home = runtime.cgroups.fragments_path(runtime.config.cgroup.parent)
    for pid in runtime.cgroups.pids(home) - known:
        if _holds(pid, runtime.records.folder):
            log.error("fragment %d has lost its folder in %s and will be killed", pid, runtime.records.folder)
            await asyncio.to_thread(_kill, pid, runtime.records.folder)
        elif _parent(pid) not in known:  # else a fragment's child that moves to its container's cgroup
            log.error("process %d in cgroup %s is not a known fragment: ignored", pid, home)


def _holds(pid: int, pods: str) -> bool:
    """Whether the process has an open fd of a deleted folder below `pods`."""
    try:
        paths = [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]
    except OSError:  # it has just ended
        return False
    return any(path.startswith(f"{pods}/") and path.endswith(_DELETED) for path in paths)


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def _kill(pid: int, pods: str) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not _holds(pid, pods):  # the pid was reused
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(_DEATH_S * 1000):
            log.error("fragment %d: still alive after SIGKILL, it hangs in the kernel", pid)
    finally:
        os.close(pidfd)

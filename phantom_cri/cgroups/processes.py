"""Waits for a cgroup's processes to exit, by pidfd instead of polling."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Sequence

from phantom_cri.cgroups.tree import Tree

# A cgroup may be busy although no process is listed: a reaped task is still on its CPU
# (kernel/cgroup/cgroup.c, cgroup_task_dead). It lasts microseconds, and no event reports its end.
_OFF_CPU_S = 0.0005


def deadline_after(timeout_s: float) -> float:
    return time.monotonic() + timeout_s


def wait_until_empty(trees: Sequence[Tree], name: str, deadline: float) -> bool:
    """True once no process is listed in `name` or below, in all of the trees; False after `deadline`."""
    seen = False
    while pids := set().union(*(tree.pids(name) for tree in trees)):
        seen = True
        if not wait_for_exit(pids, deadline):
            return False
    if not seen:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_OFF_CPU_S)
    return True


def wait_for_exit(pids: Iterable[int], deadline: float) -> bool:
    """True when all have exited (zombies count); False when `deadline` passes first."""
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue  # gone (ESRCH), or not a thread group leader (EINVAL), which is waited for
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return False
        finally:
            os.close(pidfd)
    return True


def kill_listed(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

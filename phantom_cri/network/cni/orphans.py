"""Plugins that still run after their daemon has ended: their ADD must not run concurrently with DEL."""

from __future__ import annotations

import logging
import os
import select
import signal
from collections.abc import Set

log = logging.getLogger(__name__)

_PATIENCE_S = 5.0
_VARIABLE = b"CNI_CONTAINERID="


def end_orphans(sandbox_ids: Set[str]) -> None:
    """Kill every plugin process with one of these ids in its environment, delegates included, and wait.

    Blocks: some 20 µs for each process of the node, none without ids.
    """
    if not sandbox_ids:
        return
    wanted = {_VARIABLE + sandbox_id.encode() for sandbox_id in sandbox_ids}
    # by increasing pid, callers before their delegates: a killed caller starts no new ones
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if pid != os.getpid() and _has_id(pid, wanted):
            _end(pid, wanted)


def _has_id(pid: int, wanted: Set[bytes]) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return not wanted.isdisjoint(file.read().split(b"\0"))
    except OSError:  # it has ended, or access is denied
        return False


def _end(pid: int, wanted: Set[bytes]) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not _has_id(pid, wanted):  # the pid was reused
            return
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll = select.poll()  # select(2) cannot use descriptors above 1023
        poll.register(pidfd, select.POLLIN)
        ended = poll.poll(1000 * _PATIENCE_S)
        log.warning(
            "CNI plugin of an earlier daemon killed: pid %d%s", pid, "" if ended else ", but it hangs"
        )
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)

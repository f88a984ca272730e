"""Containers that this daemon cannot manage: there is no common protocol version with the pod's fragment, or
the pod has records of a newer schema.

Their end is observed through a pidfd, and through the exit records that the fragment writes.
"""

from __future__ import annotations

import asyncio
import os

from phantom_cri import codec, fragments
from phantom_cri.concurrency import Background
from phantom_cri.errors import NotFound
from phantom_cri.lifecycle import endings
from phantom_cri.lifecycle.live import Container
from phantom_cri.lifecycle.runtime import Runtime

INTERVAL = 0.05
"""Seconds between checks for the exit record of a container whose first process has ended."""


def watch(runtime: Runtime, container: Container) -> None:
    """Record how the container ends, or how it ended while no daemon ran."""
    if endings.has_exit(runtime, container):
        _exited(runtime, container)
    elif container.record.state == "running":
        _following.start(_follow(runtime, container), f"follow {container.id[:12]}")


async def _follow(runtime: Runtime, container: Container) -> None:
    """The exit record is written once the output ended, up to 1 s after the process (process_end.c)."""
    await _death(container)
    # A file written by another process: polled.
    while not container.exited.is_set() and not endings.has_exit(runtime, container):  # noqa: ASYNC110
        await asyncio.sleep(INTERVAL)
    _exited(runtime, container)


async def _death(container: Container) -> None:
    if container.record.process is None:
        return
    try:
        pidfd = fragments.open_process(container.record.process)
    except NotFound:
        return
    dead = asyncio.Event()
    unwatch = fragments.watch_death(pidfd, lambda status: dead.set())
    try:
        await dead.wait()
    finally:
        unwatch()
        os.close(pidfd)


def _exited(runtime: Runtime, container: Container) -> None:
    if not container.exited.is_set():
        container.record = codec.replace(container.record, state="running")  # if its start was not recorded
        endings.container_exited(runtime, container.id, endings.last_exit(runtime, container))


_following = Background()

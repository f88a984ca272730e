"""Cleans up after containers: prepared processes, cgroups, folders."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal

from phantom_cri.concurrency import Background
from phantom_cri.errors import PhantomError
from phantom_cri.fragments.handle import DEATH_TIMEOUT, FragmentHandle
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.records import INTENDED, RECORD
from phantom_cri.lifecycle.runtime import Runtime, log

END_TIMEOUT = 5.0
"""Seconds in which a killed process must have exited."""

REMOVAL_RETRIES = (0.1, 0.5, 1.0, 5.0, 30.0, 300.0)
"""Seconds between attempts to remove a folder."""

END_INTERVAL = 0.002
"""Seconds between checks whether it has."""


async def discard(runtime: Runtime, pod: Pod, container: Container) -> None:
    """Release all resources of a container that no longer runs; the caller holds its lock."""
    await release_cgroup(runtime, container)
    runtime.images.drop_snapshot(container.id)
    if pod.fragment is not None and pod.fragment.alive():
        await forget_process(pod.fragment, container)
    runtime.records.forget_container(container)
    runtime.events.emit("deleted", pod, container.id)


async def release_cgroup(runtime: Runtime, container: Container) -> None:
    """Remove an exited container's cgroup and kill processes left in it; idempotent."""
    if container.has_cgroup:
        await runtime.cgroups.remove_async(container.record.cgroup)
        container.has_cgroup = False


async def give_up_preparation(pod: Pod, container: Container) -> None:
    """Kill a process that was prepared but will not be started; idempotent."""
    task, container.preparation = container.preparation, None
    if task is None:
        return
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and task.exception() is None and pod.fragment is not None:
        await forget_process(pod.fragment, container)


async def end_process(fragment: FragmentHandle, container: Container) -> None:
    """Kill the process of a start that failed or whose answer was lost, and drop its entry.

    If the connection was lost, this waits until the handle has reconnected. Raises TimeoutError.
    """
    async with asyncio.timeout(END_TIMEOUT):
        while fragment.alive():
            with contextlib.suppress(PhantomError):  # it has ended, or was never started
                await fragment.client.signal(container.id, signal.SIGKILL, all_processes=True)
            with contextlib.suppress(PhantomError):  # it is still exiting
                await fragment.client.forget(container.id)
                break
            await asyncio.sleep(END_INTERVAL)
    fragment.take_early_exit(container.id)


def remove_folder(folder: str) -> None:
    """Remove a pod's folder. Its record is removed first, so that no later daemon recovers the pod.

    The rest needs an fd: if there is none, the removal is retried, also by the next daemon at its start.
    """
    for record in (RECORD, RECORD + INTENDED):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, record))
    if not try_remove(folder):
        remove_later(folder)


def remove_later(folder: str) -> None:
    """Retry `try_remove` until it succeeds."""
    _removals.start(_remove_later(folder))


def try_remove(folder: str) -> bool:
    """Remove a folder, if it exists; False if that failed."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("failed to remove %s, retrying later: %s", folder, error.strerror)
        return False
    return True


async def _remove_later(folder: str) -> None:
    for seconds in REMOVAL_RETRIES:
        await asyncio.sleep(seconds)
        if try_remove(folder):
            return


_removals = Background()


async def forget_process(fragment: FragmentHandle, container: Container) -> None:
    """Drop an ended process's entry from its fragment, or kill a prepared process; skipped if it is dead."""
    try:
        await fragment.client.forget(container.id)
    except PhantomError:
        if not await fragment.dies_within(DEATH_TIMEOUT):
            raise

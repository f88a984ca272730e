"""Starts a fragment: its socket, then its process, by native.spawn."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import NamedTuple

from phantom_cri import native
from phantom_cri.concurrency import settled
from phantom_cri.errors import Internal, kernel_error
from phantom_cri.fragments.connection import listening
from phantom_cri.fragments.descriptors import moved_up
from phantom_cri.fragments.processes import start_time_of
from phantom_cri.model import ProcessRef

SOCKET = "sock"
"""Name of a fragment's socket in its pod's folder."""


class Spawned(NamedTuple):
    """The caller owns `pidfd`, and has to reap its process (`watch_death`)."""

    process: ProcessRef
    pidfd: int


async def spawn(folder: str, clone_flags: int, *, cgroup_fd: int | None = None) -> Spawned:
    """Start a fragment whose state is in `folder` (created if missing); on return it can be connected to.

    clone_flags: CLONE_NEW*; cgroup_fd: directory of a cgroup v2 to start it in. Takes some 0.5 ms, nearly all
    in the kernel, and longer while other network namespaces are being removed, which hold the same lock: so
    it runs on a thread. Raises Internal, ResourceExhausted. After an error or cancellation only `folder` is
    left.
    """
    job = asyncio.ensure_future(asyncio.to_thread(spawn_here, folder, clone_flags, cgroup_fd))
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        await settled(job)
        if job.exception() is None:  # nobody else has its pidfd
            await asyncio.to_thread(end, job.result().pidfd)
        raise


def spawn_here(folder: str, clone_flags: int, cgroup_fd: int | None = None) -> Spawned:
    """`spawn` on the calling thread."""
    path = os.path.join(folder, SOCKET)
    try:
        os.makedirs(folder, mode=0o711, exist_ok=True)
        state_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise kernel_error(f"open {folder}", error.errno or 0) from error
    try:
        with listening(path) as socket:
            try:
                return _clone(os.path.basename(folder), clone_flags, socket.fileno(), state_fd, cgroup_fd)
            except BaseException:
                os.unlink(path)
                raise
    except OSError as error:
        raise kernel_error(f"spawn a fragment in {folder}", error.errno or 0) from error
    finally:
        os.close(state_fd)


def _clone(name: str, clone_flags: int, socket: int, state_fd: int, cgroup_fd: int | None) -> Spawned:
    title = f"fragment {name[:12]}"
    binary, cgroup = native.fragment_binary(), -1 if cgroup_fd is None else cgroup_fd
    pid, low = native.spawn(binary, title, clone_flags, socket, state_fd, cgroup)
    pidfd = moved_up(low)
    try:
        return Spawned(ProcessRef(pid, start_time_of(pid)), pidfd)
    except BaseException:
        end(pidfd)
        raise


def end(pidfd: int) -> None:
    """Kill and reap a fragment that we started; closes `pidfd`. Blocks until the kernel has cleaned it up."""
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except (ProcessLookupError, ChildProcessError) as error:
        raise Internal(f"the fragment of pidfd {pidfd} is not a child of this process") from error
    finally:
        os.close(pidfd)

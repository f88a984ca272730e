"""Checkpoints that end early: by a stop of their container, or with the daemon that made them."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from phantom_cri.lifecycle.live import Container
from phantom_cri.lifecycle.runtime import Runtime


async def give_up_checkpoint(container: Container) -> None:
    """Before its processes are killed: frozen ones do not die. Idempotent."""
    if container.checkpoint is not None:
        container.checkpoint.abandoned = True
        container.checkpoint.work.cancel()
        await asyncio.wait([container.checkpoint.work])


def thaw_all(runtime: Runtime) -> None:
    """What an earlier daemon froze for a checkpoint and left goes on; its half-made files go away."""
    folder = workplace(runtime)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    for container in runtime.records.containers.values():
        if container.record.state == "running":
            runtime.cgroups.freezer.thaw(container.record.cgroup)


def workplace(runtime: Runtime) -> Path:
    """On the disk of the images: a container's memory has no room in the state's tmpfs."""
    return Path(runtime.config.root) / "checkpoints"

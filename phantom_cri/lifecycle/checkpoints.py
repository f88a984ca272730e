"""Aborted checkpoints: by a stop of their container, or by the end of the daemon."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from phantom_cri.lifecycle.live import Container
from phantom_cri.lifecycle.runtime import Runtime


async def give_up_checkpoint(container: Container) -> None:
    """Abort a checkpoint before the container is killed, as frozen processes do not die. Idempotent."""
    if container.checkpoint is not None:
        container.checkpoint.abandoned = True
        container.checkpoint.work.cancel()
        await asyncio.wait([container.checkpoint.work])


def thaw_all(runtime: Runtime) -> None:
    """Thaw containers that an earlier daemon left frozen by a checkpoint, and remove its temporary files."""
    folder = workplace(runtime)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    for container in runtime.records.containers.values():
        if container.record.state == "running":
            runtime.cgroups.freezer.thaw(container.record.cgroup)


def workplace(runtime: Runtime) -> Path:
    """The folder for temporary files, on the images' disk: STATE's tmpfs is too small for them."""
    return Path(runtime.config.root) / "checkpoints"

"""ReopenContainerLog: switches to a new log file after the kubelet has renamed the old one."""

from __future__ import annotations

import os

from phantom_cri.errors import FailedPrecondition
from phantom_cri.fragments import FragmentLost
from phantom_cri.lifecycle import states
from phantom_cri.lifecycle.log_file import open_log
from phantom_cri.lifecycle.runtime import Runtime


async def reopen_container_log(runtime: Runtime, container_id: str) -> None:
    """Open the log's path again and switch to that file, which exists on return."""
    container = runtime.records.container(container_id)
    pod = runtime.records.pod_of(container)
    async with container.lock:
        states.next_container_state(container.record.state, "reopen log", container.id)
        if not container.record.log_path or pod.fragment is None:
            raise FailedPrecondition(f"cannot reopen log of container {container.id}: it has none")
        fd = open_log(container.record.log_path)
        try:
            await pod.fragment.client.reopen_log(container.id, fd)
        except FragmentLost as error:
            if not pod.stopping:
                raise
            raise FailedPrecondition(
                f"cannot reopen log of container {container.id}: pod sandbox {pod.id} has just ended"
            ) from error
        finally:
            os.close(fd)

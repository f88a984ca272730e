"""Execs of an earlier daemon, whose clients lost their connection when it ended."""

from __future__ import annotations

import os

from phantom_cri import plans
from phantom_cri.errors import PhantomError
from phantom_cri.fragments.handle import FragmentHandle
from phantom_cri.lifecycle.live import Pod
from phantom_cri.lifecycle.runtime import Runtime, log


async def end_orphans(runtime: Runtime, pod: Pod, fragment: FragmentHandle) -> None:
    """Kill the pod's execs with all their children: no client can receive their result any more."""
    for exec_id in await _execs(fragment):
        # The fragment does not report an exec's container; for the others this does nothing.
        for container in pod.containers.values():
            try:
                await runtime.cgroups.end_exec_child(container.record.cgroup, exec_id)
            except PhantomError as error:
                log.warning("failed to kill an exec of an earlier daemon, it keeps running: %s", error)


async def _execs(fragment: FragmentHandle) -> list[str]:
    entries = await fragment.client.list_processes()
    for entry in entries:
        for fd in (entry.pidfd, entry.console):
            if fd >= 0:
                os.close(fd)
    return [entry.process_id for entry in entries if entry.kind == plans.KIND_EXEC]

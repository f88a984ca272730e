"""Commands that an earlier daemon executed for clients who have gone with it."""

from __future__ import annotations

import os

from phantom_cri import plans
from phantom_cri.errors import PhantomError
from phantom_cri.fragments.handle import FragmentHandle
from phantom_cri.lifecycle.live import Pod
from phantom_cri.lifecycle.runtime import Runtime, log


async def end_orphans(runtime: Runtime, pod: Pod, fragment: FragmentHandle) -> None:
    """Kill the pod's execs with all their children: nobody could be told of them any more."""
    for exec_id in await _execs(fragment):
        # The fragment does not say whose it is; with the others there is nothing to end.
        for container in pod.containers.values():
            try:
                await runtime.cgroups.end_exec_child(container.record.cgroup, exec_id)
            except PhantomError as error:
                log.warning("an exec of an earlier daemon goes on: %s", error)


async def _execs(fragment: FragmentHandle) -> list[str]:
    entries = await fragment.client.list_processes()
    for entry in entries:
        for fd in (entry.pidfd, entry.console):
            if fd >= 0:
                os.close(fd)
    return [entry.process_id for entry in entries if entry.kind == plans.KIND_EXEC]

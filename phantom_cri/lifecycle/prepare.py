"""Prepares a container's start, everything before its execve, in the background.

Between CreateContainer's answer and StartContainer's request there is a round trip through the client. In
this time the cgroup and the plan are made, and the fragment starts the process up to its execve;
StartContainer then only releases it (as `runc create` and `runc start`). If the preparation fails, the error
is only logged at debug: the start is retried from the beginning, and the retry's error is returned.
"""

from __future__ import annotations

import asyncio

from phantom_cri import codec, plans
from phantom_cri.cgroups import LaunchFds
from phantom_cri.errors import PhantomError
from phantom_cri.fragments.handle import FragmentHandle
from phantom_cri.lifecycle import cleanup
from phantom_cri.lifecycle.container_spec import allowed_devices, container_spec, resolved_of
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.log_file import open_log
from phantom_cri.lifecycle.runtime import Runtime, log
from phantom_cri.model import ContainerRecord, Resources
from phantom_cri.plans import Plan
from phantom_cri.undo import Undo


def begin(runtime: Runtime, pod: Pod, container: Container) -> None:
    """Prepare in the background, after the caller's answer was sent."""
    if pod.fragment is None:
        return
    task = asyncio.create_task(
        prepare(runtime, pod, pod.fragment, container), name=f"prepare {container.id[:12]}"
    )
    task.add_done_callback(_note_failure)
    container.preparation = task


def _note_failure(task: asyncio.Task[Plan]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.debug("%s: %s", task.get_name(), error)


async def prepared(runtime: Runtime, pod: Pod, fragment: FragmentHandle, container: Container) -> Plan:
    """The plan of a prepared process: prepared in the background, else prepared now."""
    task, container.preparation = container.preparation, None
    if task is not None:
        try:
            return await task
        except PhantomError:
            pass
    return await prepare(runtime, pod, fragment, container)


async def prepare(runtime: Runtime, pod: Pod, fragment: FragmentHandle, container: Container) -> Plan:
    stages = runtime.stages("prepare")
    record = container.record
    async with Undo("preparing a container") as undo:
        with stages.stage("cgroup"):
            undo.push("cgroup", lambda: cleanup.release_cgroup(runtime, container))
            container.has_cgroup = True
            rules = allowed_devices(record, resolved_of(runtime, pod, container).devices)
            await runtime.cgroups.create_async(record.cgroup, limits(runtime, record), rules)
        with plans.Donations() as donations, runtime.cgroups.launch_fds(record.cgroup) as fds:
            with stages.stage("plan"):
                donate(runtime, donations, container, fds)
                spec = container_spec(runtime, pod, container)
                template = fragment.has_template and plans.wants_template(spec)
                fragment.has_template = fragment.has_template and not template
                plan = plans.container_plan(spec, donations.names(), hold=True, template=template)
                container.plan = plan
            with stages.stage("kernel"):
                undo.push("process", lambda: cleanup.end_process(fragment, container))
                (await fragment.client.prepare(record.id, plan, donations)).close()
        undo.keep()
    runtime.observe(pod, stages)
    return plan


def limits(runtime: Runtime, record: ContainerRecord) -> Resources:
    """The limits of its cgroup: the request's, and the configured limit of processes."""
    return codec.replace(record.resources, pids_limit=runtime.config.pids_limit)


def donate(runtime: Runtime, donations: plans.Donations, container: Container, fds: LaunchFds) -> None:
    """Add the fds that the fragment needs, since it never opens a host path itself."""
    for name, fd in lendable(runtime, fds).items():
        donations.lend(name, fd)
    if container.record.log_path:
        donations.give("log", open_log(container.record.log_path))


def lendable(runtime: Runtime, fds: LaunchFds) -> dict[str, int]:
    """The fds lent to a container's plan, by name, in the order of slots; `fds`: those of its cgroup."""
    return {"host_mounts": runtime.host_mounts, **fds.by_name()}

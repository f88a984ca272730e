"""Create: a task with its process right before its execve."""

from __future__ import annotations

import contextlib
import os
import signal

from phantom_cri import codec, plans
from phantom_cri.errors import InvalidArgument, PhantomError
from phantom_cri.fragments.handle import FragmentHandle
from phantom_cri.undo import Undo
from shim import pods, stdio
from shim.bundle import note_init
from shim.console import Console, open_ends
from shim.document import ConsoleSize
from shim.kept import Kept
from shim.node import Node
from shim.oci_spec import Base, Wanted
from shim.records import Pod, Task, TaskRecord
from shim.spaces import namespaces_in


async def create(node: Node, pod: Pod, record: TaskRecord, wanted: Wanted) -> Task:
    """In a pod whose fragment runs; the caller holds the pod's lock. `record`: all but what is found here."""
    fragment = pod.living()
    if pod.tasks and (wanted.hostname or wanted.sysctls):
        field = "hostname" if wanted.hostname else "linux.sysctl"
        raise InvalidArgument(f"{field}: the pod's is said by its first task")
    _check_cgroup_namespace(node, wanted)
    namespaces = namespaces_in(pod, wanted.spaces)
    node.cgroups.check(wanted.resources)
    async with Undo("Create") as undo:
        spec = codec.replace(wanted.spec, namespaces=namespaces)
        task = Task(codec.replace(record, base=_base(node, spec)), pod)
        undo.push("record", task.forget)
        task.save(task.record)
        await node.cgroups.create_async(wanted.cgroup, wanted.resources, wanted.devices)
        undo.push("cgroup", lambda: node.cgroups.remove_async(wanted.cgroup))
        if wanted.shows_cgroup:
            spec = codec.replace(spec, cgroup_view=plans.CgroupView(*node.cgroups.view(wanted.cgroup)))
        undo.push("streams", lambda: _close(task))
        undo.push("process", lambda: end_unstarted(fragment, task))
        await _prepare(node, fragment, task, spec, wanted)
        undo.keep()
    pod.tasks[task.id] = task
    return task


def _check_cgroup_namespace(node: Node, wanted: Wanted) -> None:
    """On v2 a container has one unless its cgroups are writable; on v1 none has."""
    has = node.cgroups.version == "v2" and not wanted.spec.privileged
    if wanted.cgroup_namespace and not has:
        raise InvalidArgument("linux.namespaces: cgroup: not supported here (cgroup v1, or writable cgroups)")


def _base(node: Node, spec: plans.ContainerSpec) -> Base:
    return Base(
        namespaces=spec.namespaces,
        seccomp=spec.policy.seccomp,
        seccomp_flags=spec.policy.seccomp_flags,
        oom_score_adj=spec.oom_score_adj,
        own_cgroup_namespace=node.cgroups.version == "v2" and not spec.privileged,
    )


async def _prepare(
    node: Node, fragment: FragmentHandle, task: Task, spec: plans.ContainerSpec, wanted: Wanted
) -> None:
    streams = task.record.init.streams
    with plans.Donations() as donations, node.cgroups.launch_fds(wanted.cgroup) as fds:
        for name, fd in {"host_mounts": node.host_mounts, **fds.by_name()}.items():
            donations.lend(name, fd)
        if spec.namespaces.network == "given":
            donations.give("network", pods.open_namespace(wanted.spaces.network, "network"))
        if not streams.terminal:
            task.init.input = donate_streams(donations, streams, fragment, task.id)
        task.plan = plans.container_plan(spec, donations.names(), hold=True)
        started = await fragment.client.prepare(task.id, task.plan, donations)
    os.close(started.pidfd)
    if started.console >= 0:
        task.init.console = attend(started.console, fragment, task.id, streams, wanted.console)
    pid = started.process.pid if started.process else 0
    note_init(task.record.bundle, started.process)
    task.note("", codec.replace(task.record.init, state="created", pid=pid))


def attend(
    master: int, fragment: FragmentHandle, process_id: str, streams: stdio.Streams, size: ConsoleSize | None
) -> Console:
    """Between a new terminal and containerd. Raises what `open_ends` raises."""
    try:
        ends = open_ends(fragment, process_id, streams)
    except BaseException:
        os.close(master)
        raise
    console = Console(master, ends)
    if size is not None:
        console.resize(size.width, size.height)
    return console


def donate_streams(
    donations: plans.Donations, streams: stdio.Streams, fragment: FragmentHandle, process_id: str
) -> Kept | None:
    """Give a process its ends; answers what keeps its input from ending."""
    for name in ("stdout", "stderr"):
        if path := getattr(streams, name):
            donations.give(name, stdio.open_output(path, name))
    if not streams.stdin:
        return None
    found = stdio.open_input(streams.stdin)
    donations.give("stdin", found.reader)
    return Kept(fragment, f"hold.{process_id}", found.writer)


def _close(task: Task) -> None:
    task.init.close_input()
    if task.init.console is not None:
        task.init.console.close()


async def end_unstarted(fragment: FragmentHandle, task: Task) -> None:
    """Kill a process that waits for its start, if there is one: it leaves nothing."""
    if not fragment.alive():
        return
    try:
        await fragment.client.forget(task.id)
    except PhantomError:  # it has begun to run
        with contextlib.suppress(PhantomError):
            await fragment.client.signal(task.id, signal.SIGKILL, all_processes=True)

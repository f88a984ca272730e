"""What an earlier daemon has left: pods that go on, and what has become of their processes meanwhile."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from phantom_cri import codec, fragments
from phantom_cri.api.containerd import events_pb2 as pb
from phantom_cri.errors import PhantomError
from phantom_cri.fragments import Entry, Exit, State
from phantom_cri.fragments.folder import KILLED, find_fragment, stored_exit
from phantom_cri.fragments.handle import FragmentHandle
from shim.console import Console, kept_ends, open_ends
from shim.create import end_unstarted
from shim.kept import kept
from shim.node import Node
from shim.records import POD, TASKS, Pod, PodRecord, Process, Task, TaskRecord
from shim.runs import Runs

log = logging.getLogger(__name__)


async def find_pod(folder: Path) -> Pod | None:
    """With its fragment if that lives, and its tasks as recorded.

    One that never was a pod is ended; one of a release that is not understood is left as it is.
    """
    fragment = await find_fragment(str(folder))
    if fragment is not None and fragment.other_version:
        return None
    try:
        record = codec.from_stored((folder / POD).read_bytes(), PodRecord)
        tasks = [
            codec.from_stored(path.read_bytes(), TaskRecord)
            for path in sorted((folder / TASKS).glob("*.json"))
        ]
    except codec.NewerSchema as error:
        log.error("the pod of containerd in %s is left alone: %s", folder, error)
        return None
    except (OSError, codec.DecodeError) as error:
        log.info("what an earlier daemon has left in %s is no pod: %s", folder, error)
        if fragment is not None:
            await fragment.end()
        shutil.rmtree(folder, ignore_errors=True)
        return None
    pod = Pod(record, fragment, str(folder))
    pod.tasks = {task.id: Task(task, pod) for task in tasks}
    for task in pod.tasks.values():
        task.execs = {exec_id: Process() for exec_id in task.record.execs}
    return pod


async def catch_up(node: Node, runs: Runs, pod: Pod) -> None:
    """Afterwards records and processes agree, and containerd has been told."""
    entries = await _entries(pod.fragment) if pod.fragment is not None else {}
    for task in list(pod.tasks.values()):
        if _is_given_up(task):
            await _give_up(node, pod, task)
            continue
        for exec_id in ("", *task.execs):
            await _catch_up(runs, task, exec_id, entries.get(task.fragment_id(exec_id)))
    for entry in entries.values():
        for fd in (entry.pidfd, entry.console):
            if fd >= 0:
                os.close(fd)


async def _entries(fragment: FragmentHandle) -> dict[str, Entry]:
    """With their fds, which are the caller's."""
    found = {entry.process_id: entry for entry in await fragment.client.list_processes()}
    # One by one: only so come the terminals.
    for name, entry in list(found.items()):
        if entry.state != State.EXITED:
            if entry.pidfd >= 0:
                os.close(entry.pidfd)
            try:
                found[name] = await fragment.client.get(name)
            except PhantomError:  # it has ended just now, and was an exec that nobody waits for
                del found[name]
    return found


def _is_given_up(task: Task) -> bool:
    """Nobody has heard of it yet; or containerd has cleaned up, by the launcher alone."""
    return task.record.init.state == "creating" or not os.path.isdir(task.record.bundle)


async def _give_up(node: Node, pod: Pod, task: Task) -> None:
    if pod.fragment is not None:
        await end_unstarted(pod.fragment, task)
    await node.cgroups.kill_async(task.record.cgroup)
    await node.cgroups.remove_async(task.record.cgroup)
    task.forget()
    del pod.tasks[task.id]


async def _catch_up(runs: Runs, task: Task, exec_id: str, entry: Entry | None) -> None:
    record, process = task.process(exec_id)
    if record.state == "stopped":
        process.exited.set()
        return
    fragment = task.pod.fragment
    if entry is None or fragment is None:
        if record.state == "running" or not exec_id:
            gone = Exit(code=KILLED, signal=9) if exec_id else stored_exit(task.pod.folder, task.id)
            runs.exited(task, exec_id, gone)
        return
    if record.state == "created" and entry.state != State.PREPARED:
        _was_started(runs, task, exec_id, entry)
    if entry.state == State.EXITED:
        runs.exited(task, exec_id, entry.exit)
        return
    await _attend(fragment, task, exec_id, entry)
    if exec_id:
        runs.await_exec(task, exec_id, fragment.exec_exit(task.fragment_id(exec_id)))


def _was_started(runs: Runs, task: Task, exec_id: str, entry: Entry) -> None:
    """And nobody was told."""
    record, _ = task.process(exec_id)
    process = fragments.identify(entry.pidfd) if entry.pidfd >= 0 else None
    pid = process.pid if process else record.pid
    task.note(exec_id, codec.replace(record, state="running", pid=pid))
    if exec_id:
        runs.tell(task.pod, pb.TaskExecStarted(container_id=task.id, exec_id=exec_id, pid=pid))
    else:
        runs.tell(task.pod, pb.TaskStart(container_id=task.id, pid=pid))


async def _attend(fragment: FragmentHandle, task: Task, exec_id: str, entry: Entry) -> None:
    record, process = task.process(exec_id)
    named = task.fragment_id(exec_id)
    if not record.streams.terminal:
        process.input = await kept(fragment, f"hold.{named}")
    elif entry.console >= 0:
        ends = await kept_ends(fragment, named)
        if all(end is None for end in ends):
            ends = open_ends(fragment, named, record.streams)
        process.console = Console(os.dup(entry.console), ends)

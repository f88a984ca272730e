"""Start, and what comes after: exits as fragments tell them, recorded and told to containerd."""

from __future__ import annotations

import asyncio
import logging
import os
import time

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from phantom_cri import codec, plans
from phantom_cri.api.containerd import events_pb2 as pb
from phantom_cri.concurrency import to_the_end
from phantom_cri.errors import FailedPrecondition, PhantomError
from phantom_cri.fragments import Exit
from phantom_cri.fragments.folder import KILLED, stored_exit
from shim.create import attend, donate_streams
from shim.events import Publisher
from shim.node import Node
from shim.oci_spec import read_process
from shim.records import Pod, Process, ProcessRecord, Task

log = logging.getLogger(__name__)

START_ERROR = 128
"""Exit code of what could not be started, as containerd reports it."""


def timestamp(nanoseconds: int) -> Timestamp:
    found = Timestamp()
    found.FromNanoseconds(nanoseconds)
    return found


class Runs:
    """The life of processes from their start to their exit."""

    def __init__(self, node: Node, publisher: Publisher) -> None:
        self._node = node
        self._publisher = publisher

    def tell(self, pod: Pod, event: Message) -> None:
        self._publisher.publish(pod.record.address, pod.record.namespace, event)

    def watch(self, pod: Pod) -> None:
        """From now on exits in this pod are heard of, and its fragment's death."""
        fragment = pod.living()
        fragment.on_exit = lambda task_id, exit: self._init_exited(pod, task_id, exit)
        fragment.on_death = lambda: self._died(pod)

    async def start(self, task: Task) -> int:
        """The first process; answers its pid. The caller holds the task's lock."""
        record = task.record.init
        _check_created(record, f"task {task.id}")
        fragment = task.pod.living()
        task.init.starting = True
        try:
            # Whether it has been let go cannot be taken back.
            started = await to_the_end(fragment.client.go(task.id, task.plan))
            started.close()
        except PhantomError:
            self._failed(task, "", task.init)
            raise
        finally:
            task.init.starting = False
        task.plan = None
        task.note("", codec.replace(record, state="running"))
        self.tell(task.pod, pb.TaskStart(container_id=task.id, pid=record.pid))
        early = fragment.take_early_exit(task.id)
        if early is not None:
            self.exited(task, "", early)
        elif not fragment.alive():
            self.exited(task, "", stored_exit(task.pod.folder, task.id))
        return record.pid

    async def start_exec(self, task: Task, exec_id: str) -> int:
        record, process = task.process(exec_id)
        _check_created(record, f"task {task.id}: exec {exec_id}")
        if task.record.init.state != "running":
            raise FailedPrecondition(f"task {task.id}: it is {task.record.init.state}, not running")
        try:
            pid = await to_the_end(self._start_exec(task, exec_id, record, process))
        except PhantomError:
            self._failed(task, exec_id, process)
            raise
        return pid

    async def _start_exec(self, task: Task, exec_id: str, record: ProcessRecord, process: Process) -> int:
        fragment, cgroups, cgroup = task.pod.living(), self._node.cgroups, task.record.cgroup
        wanted = read_process(
            record.spec.encode(), task.id, task.record.base, terminal=record.streams.terminal
        )
        named = task.fragment_id(exec_id)
        exit = fragment.exec_exit(named)
        try:
            with plans.Donations() as donations, cgroups.exec_child(cgroup, exec_id) as fds:
                if fds.clone_into is not None:
                    donations.lend("cgroup", fds.clone_into)
                for index, procs in enumerate(fds.procs):
                    donations.lend(f"procs{index}", procs)
                if not record.streams.terminal:
                    process.input = donate_streams(donations, record.streams, fragment, named)
                plan = plans.exec_plan(wanted.launch, donations.names())
                started = await fragment.client.start(named, plan, donations)
            os.close(started.pidfd)
        except BaseException:
            exit.cancel()
            process.close_input()
            await cgroups.end_exec_child(cgroup, exec_id)
            raise
        if started.console >= 0:
            process.console = attend(started.console, fragment, named, record.streams, wanted.console)
        pid = started.process.pid if started.process else 0
        task.note(exec_id, codec.replace(record, state="running", pid=pid))
        self.tell(task.pod, pb.TaskExecStarted(container_id=task.id, exec_id=exec_id, pid=pid))
        self.await_exec(task, exec_id, exit)
        return pid

    def await_exec(self, task: Task, exec_id: str, exit: asyncio.Future[Exit]) -> None:
        """`exit`: as the fragment's handle will tell it."""
        exit.add_done_callback(
            lambda done: self._exec_exited(task, exec_id, done.exception() or done.result())
        )

    def _exec_exited(self, task: Task, exec_id: str, result: Exit | BaseException) -> None:
        if exec_id in task.execs:
            exit = result if isinstance(result, Exit) else Exit(code=KILLED, signal=9)
            self.exited(task, exec_id, exit)

    def _init_exited(self, pod: Pod, task_id: str, exit: Exit) -> None:
        task = pod.tasks.get(task_id)
        if task is None:
            return
        if task.init.starting and pod.fragment is not None:
            pod.fragment.keep_early_exit(task_id, exit)
        elif task.record.init.state == "running":
            self.exited(task, "", exit)

    def _died(self, pod: Pod) -> None:
        for task in list(pod.tasks.values()):
            if task.record.init.state != "stopped" and not task.init.starting:
                self.exited(task, "", stored_exit(pod.folder, task.id))

    def killed_unstarted(self, task: Task, signal_number: int) -> None:
        """It was killed before its start."""
        self.exited(task, "", Exit(code=128 + signal_number, signal=signal_number))

    def _failed(self, task: Task, exec_id: str, process: Process) -> None:
        """A start did not work: nobody hears of an exit but who waits for it."""
        record, _ = task.process(exec_id)
        ended = codec.replace(record, state="stopped", exit_code=START_ERROR, exited_at=time.time_ns())
        self._end(task, exec_id, ended, process)

    def exited(self, task: Task, exec_id: str, exit: Exit) -> None:
        record, process = task.process(exec_id)
        at = exit.finished_at or time.time_ns()
        if exit.oom and not exec_id:
            self.tell(task.pod, pb.TaskOOM(container_id=task.id))
        event = pb.TaskExit(
            container_id=task.id, id=exec_id or task.id, pid=record.pid, exit_status=exit.code
        )
        event.exited_at.CopyFrom(timestamp(at))
        self.tell(task.pod, event)
        self._end(
            task, exec_id, codec.replace(record, state="stopped", exit_code=exit.code, exited_at=at), process
        )

    def _end(self, task: Task, exec_id: str, record: ProcessRecord, process: Process) -> None:
        try:
            task.note(exec_id, record)
        except OSError as error:
            log.warning("task %s: its end is not recorded: %s", task.id, error)
        process.close_input()
        process.exited.set()


def _check_created(record: ProcessRecord, what: str) -> None:
    if record.state != "created":
        raise FailedPrecondition(f"{what}: it is {record.state}: only what is created can be started")

"""All tasks of this daemon, and the verbs of containerd's task service in our terms."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass

from phantom_cri import codec, plans
from phantom_cri.api.containerd import events_pb2 as pb
from phantom_cri.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    PhantomError,
    kernel_error,
)
from shim import pods, recovery, stdio
from shim.bundle import read_config
from shim.create import create, end_unstarted
from shim.events import Publisher
from shim.kept import keep
from shim.node import Node
from shim.oci_spec import Base, read_bundle, read_process
from shim.records import Pod, PodRecord, Process, ProcessRecord, Task, TaskRecord
from shim.runs import Runs
from shim.stdio import Streams
from shim.warm import Warm
from shim.wires import LISTENER

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Creation:
    """`rootfs`: as containerd's snapshotter gave it. again: an earlier daemon may have done it."""

    namespace: str
    id: str
    bundle: str
    rootfs: tuple[plans.GivenMount, ...]
    streams: Streams
    again: bool = False


class Tasks:
    """By containerd's namespace and id. Verbs raise PhantomErrors; NotFound for what is unknown."""

    def __init__(self, node: Node, publisher: Publisher) -> None:
        self._node = node
        self.runs = Runs(node, publisher)
        self.warm = Warm(node)
        self._tasks: dict[Key, Task] = {}
        self._pods: dict[Key, Pod] = {}
        self._addresses: dict[Key, str] = {}
        self.listener: socket.socket | None = None  # that fragments keep for a later daemon

    @property
    def pods(self) -> Collection[Pod]:
        return self._pods.values()

    async def take_over(self, pod: Pod) -> None:
        """A pod of an earlier daemon, with its tasks as they were recorded."""
        self._pods[pod.record.namespace, pod.record.group] = pod
        if pod.fragment is not None:
            self.runs.watch(pod)
        await recovery.catch_up(self._node, self.runs, pod)
        for task in pod.tasks.values():
            self._tasks[task.record.namespace, task.id] = task
        async with pod.lock:
            await self._end_if_empty(pod)

    def expect(self, namespace: str, task_id: str, address: str) -> None:
        """containerd, which takes events at `address`, is about to create this task."""
        self._addresses[namespace, task_id] = address

    def find(self, namespace: str, task_id: str) -> Task:
        if (namespace, task_id) not in self._tasks:
            raise NotFound(f"task {task_id} in namespace {namespace}: there is none")
        return self._tasks[namespace, task_id]

    async def create(self, asked: Creation, on_pod: Callable[[Pod], None]) -> Task:
        """Nothing is left of one that fails. `on_pod`: is told the task's pod before it is made."""
        key = (asked.namespace, asked.id)
        address = self._addresses.pop(key, "")
        if (made := self._tasks.get(key)) is not None:
            if asked.again and made.record.bundle == asked.bundle:
                self.runs.tell(made.pod, _created(made, asked.rootfs))
                return made
            raise AlreadyExists(f"task {asked.id} in namespace {asked.namespace}: there is one already")
        stdio.check(asked.streams)
        try:
            text = read_config(asked.bundle)
        except OSError as error:
            raise kernel_error(f"{asked.bundle}/config.json", error.errno or 0) from error
        wanted = read_bundle(text, asked.id, asked.bundle, asked.rootfs, terminal=asked.streams.terminal)
        record = TaskRecord(
            namespace=asked.namespace,
            id=asked.id,
            bundle=asked.bundle,
            cgroup=wanted.cgroup,
            resources=wanted.resources,
            devices=wanted.device_rules,
            base=_NO_BASE,
            init=ProcessRecord(streams=asked.streams),
        )
        first = PodRecord(
            namespace=asked.namespace, group=wanted.group, address=address, spaces=wanted.spaces
        )
        async with self._pod(first) as pod:
            try:
                if pod.fragment is None and not pod.tasks:
                    await pods.begin(pod, wanted, self.warm.obtain)
                    self.runs.watch(pod)
                    if self.listener is not None:
                        keep(pod.living(), LISTENER, self.listener.fileno())
                on_pod(pod)
                task = self._tasks[key] = await create(self._node, pod, record, wanted)
            except BaseException:
                await self._end_if_empty(pod)
                raise
        self.runs.tell(pod, _created(task, asked.rootfs))
        return task

    @contextlib.asynccontextmanager
    async def _pod(self, first: PodRecord) -> AsyncIterator[Pod]:
        """The pod of this group, locked; one that has just ended is not taken."""
        key = (first.namespace, first.group)
        while True:
            pod = self._pods.setdefault(key, Pod(first))
            async with pod.lock:
                if self._pods.get(key) is pod:
                    yield pod
                    return

    async def start(self, namespace: str, task_id: str, exec_id: str, *, again: bool = False) -> int:
        """again: one that has been started is fine."""
        task = self.find(namespace, task_id)
        async with task.lock:
            record, _ = task.process(exec_id)
            if again and record.state in ("running", "stopped"):
                return record.pid
            if exec_id:
                return await self.runs.start_exec(task, exec_id)
            return await self.runs.start(task)

    async def add_exec(
        self,
        namespace: str,
        task_id: str,
        exec_id: str,
        spec: bytes,
        streams: Streams,
        *,
        again: bool = False,
    ) -> None:
        """again: one that is there is fine."""
        task = self.find(namespace, task_id)
        if exec_id in task.execs and not again:
            raise AlreadyExists(f"task {task_id}: exec {exec_id}: there is one already")
        if exec_id not in task.execs:
            stdio.check(streams)
            read_process(spec, task_id, task.record.base, terminal=streams.terminal)  # an error is told now
            task.note(exec_id, ProcessRecord(streams=streams, state="created", spec=spec.decode()))
            task.execs[exec_id] = Process()
        self.runs.tell(task.pod, pb.TaskExecAdded(container_id=task_id, exec_id=exec_id))

    async def kill(
        self, namespace: str, task_id: str, exec_id: str, number: int, *, all_processes: bool
    ) -> None:
        task = self.find(namespace, task_id)
        record, _ = task.process(exec_id)
        if record.state == "stopped" or (exec_id and record.state == "created"):
            raise NotFound(f"{task.fragment_id(exec_id)}: process is not running: it is {record.state}")
        if record.state == "created":
            async with task.lock:
                if task.record.init.state == "created":
                    await end_unstarted(task.pod.living(), task)
                    self.runs.killed_unstarted(task, number)
                    return
        if number == signal.SIGKILL and task.record.paused:
            self._node.cgroups.freezer.thaw(task.record.cgroup)  # or it would never die (cgroup v1)
        client = task.pod.living().client
        await client.signal(task.fragment_id(exec_id), number, all_processes=all_processes)

    async def delete(self, namespace: str, task_id: str, exec_id: str) -> ProcessRecord:
        """What is left of a process that has ended; the last task of a pod ends the pod."""
        task = self.find(namespace, task_id)
        async with task.lock:
            record, process = task.process(exec_id)
            if record.state == "running" or (record.state == "created" and not exec_id):
                raise FailedPrecondition(f"{task.fragment_id(exec_id)}: it is {record.state}, not stopped")
            if process.console is not None:
                process.console.close()
            if exec_id:
                await self._forget_exec(task, exec_id)
            else:
                await self._forget(task)
        return record

    async def _forget_exec(self, task: Task, exec_id: str) -> None:
        with contextlib.suppress(PhantomError):  # its fragment is gone
            await task.pod.living().client.forget(task.fragment_id(exec_id))
        with contextlib.suppress(PhantomError):
            self._node.cgroups.leave_exec_child(task.record.cgroup, exec_id)
        del task.execs[exec_id]
        left = {name: one for name, one in task.record.execs.items() if name != exec_id}
        task.save(codec.replace(task.record, execs=left))

    async def _forget(self, task: Task) -> None:
        pod, record = task.pod, task.record
        await self._node.cgroups.kill_async(record.cgroup)
        await self._node.cgroups.remove_async(record.cgroup)
        with contextlib.suppress(PhantomError):  # its fragment is gone
            await pod.living().client.forget(task.id)
        task.forget()
        del self._tasks[record.namespace, record.id]
        del pod.tasks[record.id]
        event = pb.TaskDelete(container_id=record.id, pid=record.init.pid, exit_status=record.init.exit_code)
        event.exited_at.FromNanoseconds(record.init.exited_at)
        self.runs.tell(pod, event)
        async with pod.lock:
            await self._end_if_empty(pod)

    async def _end_if_empty(self, pod: Pod) -> None:
        """The caller holds the pod's lock."""
        named = (pod.record.namespace, pod.record.group)
        if not pod.tasks and self._pods.get(named) is pod:
            del self._pods[named]
            await pods.end(pod)

    async def clean_up(self, namespace: str, task_id: str) -> ProcessRecord | None:
        """End and forget a task that containerd gave up; None when it is not known."""
        self._addresses.pop((namespace, task_id), None)
        task = self._tasks.get((namespace, task_id))
        if task is None:
            return None
        async with task.lock:
            if task.record.init.state != "stopped":
                fragment = task.pod.fragment
                if fragment is not None and fragment.alive():
                    with contextlib.suppress(PhantomError):
                        await end_unstarted(fragment, task)
                await self._node.cgroups.kill_async(task.record.cgroup)
                if task.record.init.state == "created":
                    self.runs.killed_unstarted(task, signal.SIGKILL)
                await task.init.exited.wait()
            await self._forget(task)
        return task.record.init

    async def wait(self, namespace: str, task_id: str, exec_id: str) -> ProcessRecord:
        task = self.find(namespace, task_id)
        _, process = task.process(exec_id)
        await process.exited.wait()
        return task.process(exec_id)[0]

    def resize(self, namespace: str, task_id: str, exec_id: str, width: int, height: int) -> None:
        _, process = self.find(namespace, task_id).process(exec_id)
        if process.console is not None:
            process.console.resize(width, height)

    def close_input(self, namespace: str, task_id: str, exec_id: str) -> None:
        self.find(namespace, task_id).process(exec_id)[1].close_input()


_NO_BASE = Base(
    namespaces=plans.Namespaces(), seccomp=b"", seccomp_flags=0, oom_score_adj=0, own_cgroup_namespace=False
)


def _created(task: Task, rootfs: Sequence[plans.GivenMount]) -> pb.TaskCreate:
    streams = task.record.init.streams
    event = pb.TaskCreate(container_id=task.id, bundle=task.record.bundle, pid=task.record.init.pid)
    event.io.stdin, event.io.stdout, event.io.stderr, event.io.terminal = streams
    for mount in rootfs:
        event.rootfs.add(type=mount.type, source=mount.source, target=mount.target, options=mount.options)
    return event

"""containerd's task service: messages ↔ verbs."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.any_pb2 import Any
from google.protobuf.empty_pb2 import Empty

from phantom_cri.api.containerd import task_pb2 as pb
from phantom_cri.errors import InvalidArgument, Unimplemented
from phantom_cri.plans import GivenMount
from phantom_cri.rpc.ttrpc_server import Call
from shim.cgroup_verbs import CgroupVerbs
from shim.metrics import metrics_of
from shim.records import Pod, ProcessRecord, Task
from shim.runs import timestamp
from shim.stdio import Streams
from shim.tasks import Creation, Tasks
from shim.wires import Wire

NAMESPACE = "containerd-namespace-ttrpc"
SERVICES = ("containerd.task.v2.Task", "containerd.task.v3.Task")
"""Versions of one service."""

_STATES = {"created": pb.CREATED, "running": pb.RUNNING, "stopped": pb.STOPPED}


class TaskService:
    def __init__(self, tasks: Tasks, cgroups: CgroupVerbs, version: str) -> None:
        self._tasks, self._cgroups = tasks, cgroups
        self._version = version

    def _enter(self, call: Call, task_id: str) -> str:
        """containerd's namespace; its connection outlives this daemon from now on. Raises NotFound."""
        namespace = _namespace(call.metadata)
        _keep(call, self._tasks.find(namespace, task_id).pod)
        return namespace

    async def Create(self, request: pb.CreateTaskRequest, call: Call) -> pb.CreateTaskResponse:
        if request.checkpoint or request.parent_checkpoint:
            raise Unimplemented("checkpoint: tasks are not restored from checkpoints")
        mounts = [GivenMount(one.type, one.source, one.target, tuple(one.options)) for one in request.rootfs]
        streams = Streams(request.stdin, request.stdout, request.stderr, request.terminal)
        asked = Creation(
            _namespace(call.metadata), request.id, request.bundle, tuple(mounts), streams, call.again
        )
        task = await self._tasks.create(asked, lambda pod: _keep(call, pod))
        return pb.CreateTaskResponse(pid=task.record.init.pid)

    async def Start(self, request: pb.StartRequest, call: Call) -> pb.StartResponse:
        pid = await self._tasks.start(
            self._enter(call, request.id), request.id, request.exec_id, again=call.again
        )
        return pb.StartResponse(pid=pid)

    async def Delete(self, request: pb.DeleteRequest, call: Call) -> pb.DeleteResponse:
        ended = await self._tasks.delete(self._enter(call, request.id), request.id, request.exec_id)
        return deleted(ended)

    async def Exec(self, request: pb.ExecProcessRequest, call: Call) -> Empty:
        if not request.exec_id:
            raise InvalidArgument("exec_id: it is empty")
        streams = Streams(request.stdin, request.stdout, request.stderr, request.terminal)
        spec = _json(request.spec, "spec", "Process")
        await self._tasks.add_exec(
            self._enter(call, request.id), request.id, request.exec_id, spec, streams, again=call.again
        )
        return Empty()

    async def State(self, request: pb.StateRequest, call: Call) -> pb.StateResponse:
        task = self._tasks.find(self._enter(call, request.id), request.id)
        record, _ = task.process(request.exec_id)
        return _state(task, record, request.exec_id)

    async def Kill(self, request: pb.KillRequest, call: Call) -> Empty:
        await self._tasks.kill(
            self._enter(call, request.id),
            request.id,
            request.exec_id,
            request.signal,
            all_processes=request.all,
        )
        return Empty()

    async def Wait(self, request: pb.WaitRequest, call: Call) -> pb.WaitResponse:
        ended = await self._tasks.wait(self._enter(call, request.id), request.id, request.exec_id)
        return pb.WaitResponse(exit_status=ended.exit_code, exited_at=timestamp(ended.exited_at))

    async def Pids(self, request: pb.PidsRequest, call: Call) -> pb.PidsResponse:
        pids = self._cgroups.pids(self._enter(call, request.id), request.id)
        return pb.PidsResponse(processes=[pb.ProcessInfo(pid=pid) for pid in pids])

    async def Pause(self, request: pb.PauseRequest, call: Call) -> Empty:
        await self._cgroups.pause(self._enter(call, request.id), request.id, resume=False)
        return Empty()

    async def Resume(self, request: pb.ResumeRequest, call: Call) -> Empty:
        await self._cgroups.pause(self._enter(call, request.id), request.id, resume=True)
        return Empty()

    async def ResizePty(self, request: pb.ResizePtyRequest, call: Call) -> Empty:
        self._tasks.resize(
            self._enter(call, request.id), request.id, request.exec_id, request.width, request.height
        )
        return Empty()

    async def CloseIO(self, request: pb.CloseIORequest, call: Call) -> Empty:
        if request.stdin:
            self._tasks.close_input(self._enter(call, request.id), request.id, request.exec_id)
        return Empty()

    async def Update(self, request: pb.UpdateTaskRequest, call: Call) -> Empty:
        text = _json(request.resources, "resources", "LinuxResources")
        await self._cgroups.update(self._enter(call, request.id), request.id, text)
        return Empty()

    async def Stats(self, request: pb.StatsRequest, call: Call) -> pb.StatsResponse:
        found = metrics_of(await self._cgroups.usage(self._enter(call, request.id), request.id))
        stats = Any(type_url=found.DESCRIPTOR.full_name, value=found.SerializeToString())
        return pb.StatsResponse(stats=stats)

    async def Connect(self, request: pb.ConnectRequest, call: Call) -> pb.ConnectResponse:
        task = self._tasks.find(self._enter(call, request.id), request.id)
        fragment = task.pod.fragment
        return pb.ConnectResponse(
            shim_pid=fragment.process.pid if fragment else 0,
            task_pid=task.record.init.pid,
            version=self._version,
        )

    async def Shutdown(self, request: pb.ShutdownRequest, call: Call) -> Empty:
        """The daemon serves all; what was the task's went with its Delete."""
        return Empty()


def deleted(ended: ProcessRecord) -> pb.DeleteResponse:
    return pb.DeleteResponse(pid=ended.pid, exit_status=ended.exit_code, exited_at=timestamp(ended.exited_at))


def _keep(call: Call, pod: Pod) -> None:
    if not call.connection.is_journalled and pod.fragment is not None and pod.fragment.alive():
        call.connection.journal_to(Wire(pod.fragment))


def _namespace(metadata: Mapping[str, str]) -> str:
    namespace = metadata.get(NAMESPACE, "")
    if not namespace:
        raise InvalidArgument(f"metadata {NAMESPACE}: it is missing")
    return namespace


def _json(value: Any, field: str, kind: str) -> bytes:
    """Of containerd's type `kind`, which is JSON in an Any."""
    if value.type_url.rpartition("/")[2] != kind:
        raise InvalidArgument(f"{field}: {value.type_url!r}: want an OCI {kind}")
    return value.value


def _state(task: Task, record: ProcessRecord, exec_id: str) -> pb.StateResponse:
    streams, is_paused = record.streams, task.record.paused and record.state == "running"
    response = pb.StateResponse(
        id=task.id,
        bundle=task.record.bundle,
        pid=record.pid,
        status=pb.PAUSED if is_paused else _STATES[record.state],
        stdin=streams.stdin,
        stdout=streams.stdout,
        stderr=streams.stderr,
        terminal=streams.terminal,
        exit_status=record.exit_code,
        exec_id=exec_id,
    )
    if record.exited_at:
        response.exited_at.CopyFrom(timestamp(record.exited_at))
    return response

# Written by api/generate: change the .proto instead.
# ruff: noqa

import grpc.aio

from phantom_cri.api.containerd import task_pb2

class TaskStub:
    def __init__(self, channel: grpc.aio.Channel) -> None: ...
    State: grpc.aio.UnaryUnaryMultiCallable[task_pb2.StateRequest, task_pb2.StateResponse]
    Create: grpc.aio.UnaryUnaryMultiCallable[task_pb2.CreateTaskRequest, task_pb2.CreateTaskResponse]
    Start: grpc.aio.UnaryUnaryMultiCallable[task_pb2.StartRequest, task_pb2.StartResponse]
    Delete: grpc.aio.UnaryUnaryMultiCallable[task_pb2.DeleteRequest, task_pb2.DeleteResponse]
    Pids: grpc.aio.UnaryUnaryMultiCallable[task_pb2.PidsRequest, task_pb2.PidsResponse]
    Pause: grpc.aio.UnaryUnaryMultiCallable[task_pb2.PauseRequest, task_pb2.Empty]
    Resume: grpc.aio.UnaryUnaryMultiCallable[task_pb2.ResumeRequest, task_pb2.Empty]
    Checkpoint: grpc.aio.UnaryUnaryMultiCallable[task_pb2.CheckpointTaskRequest, task_pb2.Empty]
    Kill: grpc.aio.UnaryUnaryMultiCallable[task_pb2.KillRequest, task_pb2.Empty]
    Exec: grpc.aio.UnaryUnaryMultiCallable[task_pb2.ExecProcessRequest, task_pb2.Empty]
    ResizePty: grpc.aio.UnaryUnaryMultiCallable[task_pb2.ResizePtyRequest, task_pb2.Empty]
    CloseIO: grpc.aio.UnaryUnaryMultiCallable[task_pb2.CloseIORequest, task_pb2.Empty]
    Update: grpc.aio.UnaryUnaryMultiCallable[task_pb2.UpdateTaskRequest, task_pb2.Empty]
    Wait: grpc.aio.UnaryUnaryMultiCallable[task_pb2.WaitRequest, task_pb2.WaitResponse]
    Stats: grpc.aio.UnaryUnaryMultiCallable[task_pb2.StatsRequest, task_pb2.StatsResponse]
    Connect: grpc.aio.UnaryUnaryMultiCallable[task_pb2.ConnectRequest, task_pb2.ConnectResponse]
    Shutdown: grpc.aio.UnaryUnaryMultiCallable[task_pb2.ShutdownRequest, task_pb2.Empty]

"""A ttrpc server on a Unix socket: unary calls, each a task of its own."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from phantom_cri.api.containerd import ttrpc_pb2 as pb
from phantom_cri.errors import (
    DataLoss,
    DeadlineExceeded,
    InvalidArgument,
    PhantomError,
    ResourceExhausted,
    Unimplemented,
)
from phantom_cri.rpc.calls import GRPC_CODES, told
from phantom_cri.rpc.server import make_way
from phantom_cri.rpc.ttrpc import LARGEST, Frame, Kind, pack, read_frame
from phantom_cri.telemetry.logs import about, printable
from phantom_cri.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

Services = Mapping[str, tuple[ServiceDescriptor, object]]
"""By full name: a descriptor, and an object with `async def Method(request, metadata)` for each RPC."""


class TtrpcServer:
    """`async with` listens; leaving it cancels running calls, hangs up and removes the socket.

    The calls of a client that hangs up are cancelled. An RPC without a method answers UNIMPLEMENTED.
    """

    def __init__(self, path: Path, services: Services, metrics: Metrics) -> None:
        self.path = path
        self._services = services
        self._metrics = metrics
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> TtrpcServer:
        """Raises AlreadyExists when another daemon answers there, ConfigError for a bad path."""
        await asyncio.to_thread(make_way, self.path)
        mask = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._accept, self.path)
        finally:
            os.umask(mask)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self.path.unlink(missing_ok=True)
            self._server.close()
            for client in self._clients:
                client.cancel()
            if self._clients:
                await asyncio.wait(self._clients)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="ttrpc client")
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls: set[asyncio.Task[None]] = set()
        last = 0
        try:
            while (frame := await read_frame(reader)) is not None:
                if frame.kind != Kind.REQUEST:
                    raise DataLoss(f"ttrpc: a client sent a frame of type {frame.kind}")
                call = asyncio.create_task(self._answer(frame, last, writer))
                last = max(last, frame.stream)
                calls.add(call)
                call.add_done_callback(calls.discard)
        except (PhantomError, OSError) as error:
            log.warning("a ttrpc client is disconnected: %s", error)
        finally:
            for call in calls:
                call.cancel()
            writer.close()

    async def _answer(self, frame: Frame, last: int, writer: asyncio.StreamWriter) -> None:
        began, name, code = perf_counter(), "ttrpc", "OK"
        try:
            request = _read(frame, last)
            name = request.method
            method, verb = self._find(request)
            about(method=name)
            body = pack(
                frame.stream,
                Kind.RESPONSE,
                pb.Response(payload=await _call(method, verb, request)).SerializeToString(),
            )
        except Exception as error:
            code = error.code if isinstance(error, PhantomError) else "INTERNAL"
            number: int = GRPC_CODES[code].value[0]
            status = pb.Status(code=number, message=printable(told(name, code, error)))
            body = pack(frame.stream, Kind.RESPONSE, pb.Response(status=status).SerializeToString())
        self._metrics.rpc_done(name, code, perf_counter() - began)
        writer.write(body)

    def _find(self, request: pb.Request) -> tuple[MethodDescriptor, Any]:
        found = self._services.get(request.service)
        method = found and found[0].methods_by_name.get(request.method)
        verb = getattr(found[1], request.method, None) if found and method else None
        if method is None or verb is None:
            request.method, asked = "unknown", request.method  # a label of metrics
            raise Unimplemented(f"{request.service}.{asked} is not implemented")
        return method, verb


def _read(frame: Frame, last: int) -> pb.Request:
    if frame.body is None:
        raise ResourceExhausted(f"ttrpc: a request of more than {LARGEST} bytes")
    if frame.flags:
        raise Unimplemented(f"ttrpc: a stream (flags {frame.flags:#x}): only unary calls are served")
    if frame.stream % 2 == 0 or frame.stream <= last:
        raise InvalidArgument(f"ttrpc: stream id {frame.stream} after {last}: they are odd, and rise")
    try:
        return pb.Request.FromString(frame.body)
    except DecodeError:
        raise InvalidArgument("ttrpc: these bytes are no ttrpc.Request") from None


async def _call(method: MethodDescriptor, verb: Any, request: pb.Request) -> bytes:
    try:
        message = GetMessageClass(method.input_type).FromString(request.payload)
    except DecodeError:
        raise InvalidArgument(f"request: these bytes are no {method.input_type.full_name}") from None
    metadata = {pair.key: pair.value for pair in request.metadata}
    seconds = request.timeout_nano / 1e9 if request.timeout_nano > 0 else None
    try:
        async with asyncio.timeout(seconds) as limit:
            response: Message = await verb(message, metadata)
    except TimeoutError:
        if limit.expired():
            raise DeadlineExceeded(f"{request.method}: not done within {seconds:.3f} s") from None
        raise
    return response.SerializeToString()

"""A ttrpc server on a Unix socket: unary calls, each a task of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from phantom_cri.api.containerd import ttrpc_pb2 as pb
from phantom_cri.errors import (
    DeadlineExceeded,
    InvalidArgument,
    PhantomError,
    ResourceExhausted,
    Unimplemented,
)
from phantom_cri.rpc.calls import GRPC_CODES, told
from phantom_cri.rpc.server import make_way
from phantom_cri.rpc.ttrpc import LARGEST, Frame, Kind, pack
from phantom_cri.rpc.ttrpc_connection import Connection, Journal
from phantom_cri.telemetry.logs import about, printable
from phantom_cri.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

Services = Mapping[str, tuple[ServiceDescriptor, object]]
"""By full name: a descriptor, and an object with `async def Method(request, call)` for each RPC."""

BACKLOG = 128


class Call(NamedTuple):
    """What a request comes with. again: an earlier process may have served it, and was not heard."""

    metadata: Mapping[str, str]
    connection: Connection
    again: bool


class TtrpcServer:
    """Calls are tasks of their own. An RPC without a method answers UNIMPLEMENTED.

    The calls of a client that hangs up are cancelled.
    """

    def __init__(self, path: Path, services: Services, metrics: Metrics) -> None:
        self.path = path
        self._services = services
        self._metrics = metrics
        self._listener: socket.socket | None = None
        self._calls: dict[Connection, set[asyncio.Task[None]]] = {}

    async def listen(self, listener: socket.socket | None = None) -> socket.socket:
        """Take clients, at `listener` if an earlier process left one; answers it.

        Raises AlreadyExists when another daemon answers there, ConfigError for a bad path.
        """
        if listener is None:
            await asyncio.to_thread(make_way, self.path)
            listener = socket.socket(socket.AF_UNIX)
            mask = os.umask(0o177)
            try:
                listener.bind(str(self.path))
            finally:
                os.umask(mask)
            listener.listen(BACKLOG)
        listener.setblocking(False)
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept)
        return listener

    def adopt(self, peer: socket.socket, journal: Journal, requests: dict[int, bytes]) -> None:
        """Go on with a client of an earlier process, and with what it has waited for since."""
        self._serve(peer).resume(journal, requests)

    async def close(self, *, keep: bool) -> None:
        """Cancel running calls and hang up; with `keep` a later process takes over listener and clients."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            if not keep:
                self.path.unlink(missing_ok=True)
        running = set().union(*self._calls.values())
        for connection in list(self._calls):
            connection.close(keep=keep)
        if running:
            await asyncio.wait(running)

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            self._serve(self._listener.accept()[0])
        except OSError as error:
            log.warning("a ttrpc client cannot be taken now: %s", error)

    def _serve(self, peer: socket.socket) -> Connection:
        connection = Connection(peer, self._request, self._closed)
        self._calls[connection] = set()
        return connection

    def _closed(self, connection: Connection) -> None:
        for call in self._calls.pop(connection):
            call.cancel()

    def _request(self, connection: Connection, frame: Frame, last: int, again: bool) -> None:
        if frame.kind != Kind.REQUEST:
            log.warning("a ttrpc client is disconnected: it sent a frame of type %d", frame.kind)
            connection.close()
            return
        call = asyncio.create_task(self._answer(connection, frame, last, again))
        self._calls[connection].add(call)
        call.add_done_callback(self._calls[connection].discard)

    async def _answer(self, connection: Connection, frame: Frame, last: int, again: bool) -> None:
        began, name, code = perf_counter(), "ttrpc", "OK"
        try:
            request = _read(frame, last)
            name = request.method
            method, verb = self._find(request)
            about(method=name)
            call = Call({pair.key: pair.value for pair in request.metadata}, connection, again)
            payload = await _call(method, verb, request, call)
            body = pack(frame.stream, Kind.RESPONSE, pb.Response(payload=payload).SerializeToString())
        except Exception as error:
            code = error.code if isinstance(error, PhantomError) else "INTERNAL"
            number: int = GRPC_CODES[code].value[0]
            status = pb.Status(code=number, message=printable(told(name, code, error)))
            body = pack(frame.stream, Kind.RESPONSE, pb.Response(status=status).SerializeToString())
        self._metrics.rpc_done(name, code, perf_counter() - began)
        connection.answer(frame.stream, body)

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


async def _call(method: MethodDescriptor, verb: Any, request: pb.Request, call: Call) -> bytes:
    try:
        message = GetMessageClass(method.input_type).FromString(request.payload)
    except DecodeError:
        raise InvalidArgument(f"request: these bytes are no {method.input_type.full_name}") from None
    seconds = request.timeout_nano / 1e9 if request.timeout_nano > 0 else None
    try:
        async with asyncio.timeout(seconds) as limit:
            response: Message = await verb(message, call)
    except TimeoutError:
        if limit.expired():
            raise DeadlineExceeded(f"{request.method}: not done within {seconds:.3f} s") from None
        raise
    return response.SerializeToString()

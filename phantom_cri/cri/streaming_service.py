"""Exec, Attach and PortForward: each returns a URL for the streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.cri.convert.common import command_from, container_id_from, in_range, sandbox_id_from
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import Streams

HIGHEST_PORT = 65535


class StreamingVerbs(Protocol):
    """Nothing is started before the client connects to the URL, which is valid once and for a short time.

    Raises NotFound, FailedPrecondition if it does not run, ResourceExhausted for too many unused URLs.
    """

    async def exec(self, container_id: str, command: Sequence[str], streams: Streams) -> str: ...

    async def attach(self, container_id: str, streams: Streams) -> str: ...

    async def port_forward(self, sandbox_id: str, ports: Sequence[int]) -> str:
        """`ports`: for clients that cannot name ports themselves; else empty."""
        ...


class StreamingService:
    _verbs: StreamingVerbs

    async def Exec(self, request: pb.ExecRequest) -> pb.ExecResponse:
        command = command_from(request.cmd)
        container_id, streams = container_id_from(request.container_id), _streams(request)
        return pb.ExecResponse(url=await self._verbs.exec(container_id, command, streams))

    async def Attach(self, request: pb.AttachRequest) -> pb.AttachResponse:
        container_id, streams = container_id_from(request.container_id), _streams(request)
        return pb.AttachResponse(url=await self._verbs.attach(container_id, streams))

    async def PortForward(self, request: pb.PortForwardRequest) -> pb.PortForwardResponse:
        ports = [in_range(port, 1, HIGHEST_PORT, f"port[{index}]") for index, port in enumerate(request.port)]
        return pb.PortForwardResponse(
            url=await self._verbs.port_forward(sandbox_id_from(request.pod_sandbox_id), ports)
        )


def _streams(request: pb.ExecRequest | pb.AttachRequest) -> Streams:
    if request.tty and request.stderr:
        raise InvalidArgument("tty and stderr: cannot both be true, a terminal has one output")
    if not (request.stdin or request.stdout or request.stderr):
        raise InvalidArgument("stdin, stdout, stderr: one of them must be true")
    return Streams(tty=request.tty, stdin=request.stdin, stdout=request.stdout, stderr=request.stderr)

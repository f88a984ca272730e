"""A ttrpc client: one call after another, over a connection that is made again when it was lost."""

from __future__ import annotations

import asyncio

from google.protobuf.message import DecodeError, Message

from phantom_cri.api.containerd import ttrpc_pb2 as pb
from phantom_cri.errors import DataLoss, Unavailable, Unimplemented
from phantom_cri.rpc.calls import GRPC_CODES
from phantom_cri.rpc.ttrpc import Kind, pack, read_frame

_UNIMPLEMENTED = GRPC_CODES["UNIMPLEMENTED"].value[0]


class TtrpcClient:
    """Of the server at the Unix socket `path`; connects with its first call."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stream = -1
        self._pipes: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, service: str, method: str, message: Message, timeout_s: float) -> bytes:
        """The response's bytes. Raises Unavailable (nobody answers in time, or what the server refused)."""
        request = pb.Request(
            service=service,
            method=method,
            payload=message.SerializeToString(),
            timeout_nano=int(timeout_s * 1e9),
        )
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._exchange(request.SerializeToString())
        except (OSError, TimeoutError, DataLoss, DecodeError) as error:
            self.close()
            raise Unavailable(f"{self._path}: {method}: {error or type(error).__name__}") from error
        except BaseException:
            self.close()  # the answer would be taken for the next call's
            raise
        if response.status.code == _UNIMPLEMENTED:
            raise Unimplemented(f"{self._path}: {method}: {response.status.message}")
        if response.status.code:
            raise Unavailable(f"{self._path}: {method}: {response.status.message}")
        return response.payload

    async def _exchange(self, body: bytes) -> pb.Response:
        if self._pipes is None:
            self._pipes = await asyncio.open_unix_connection(self._path)
            self._stream = -1
        reader, writer = self._pipes
        self._stream += 2
        writer.write(pack(self._stream, Kind.REQUEST, body))
        await writer.drain()
        while (frame := await read_frame(reader)) is not None:
            if frame.kind == Kind.RESPONSE and frame.stream == self._stream and frame.body is not None:
                return pb.Response.FromString(frame.body)
        raise DataLoss("the server hung up")

    def close(self) -> None:
        if self._pipes is not None:
            self._pipes[1].close()
            self._pipes = None

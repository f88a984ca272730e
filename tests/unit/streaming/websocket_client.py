"""A WebSocket client over asyncio streams; wsproto does the framing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

from wsproto import WSConnection
from wsproto.connection import ConnectionType
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)


class WebSocketClient:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.protocol = WSConnection(ConnectionType.CLIENT)
        self.status = 0
        self.subprotocol: str | None = None
        self.messages: list[bytes | str] = []
        self.pongs: list[bytes] = []
        self.close_code: int | None = None
        self.closed = False
        self._parts: list[Any] = []
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls, url: str, *protocols: str, tls: ssl.SSLContext | None = None, **headers: str
    ) -> WebSocketClient:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=tls)
        client = cls(reader, writer)
        extra = [(name.encode(), value.encode()) for name, value in headers.items()]
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        request = Request(host="localhost", target=target, subprotocols=list(protocols), extra_headers=extra)
        writer.write(client.protocol.send(request))
        client._task = asyncio.create_task(client._read())
        await client.until(lambda: client.status or client.closed)
        return client

    def send(self, message: bytes | str, last: bool = True) -> None:
        event = (
            BytesMessage(data=message, message_finished=last)
            if isinstance(message, bytes)
            else TextMessage(data=message, message_finished=last)
        )
        self.writer.write(self.protocol.send(event))

    def ping(self, payload: bytes) -> None:
        self.writer.write(self.protocol.send(Ping(payload=payload)))

    def channel(self, number: int) -> bytes:
        """All that came on a binary channel."""
        return b"".join(m[1:] for m in self.messages if isinstance(m, bytes) and m[0] == number)

    def result(self) -> Any:
        return json.loads(self.channel(3))

    async def until(self, condition: Any, timeout_s: float = 10) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_closed(self) -> None:
        await self.until(lambda: self.closed)

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await self.reader.read(65536):
                self.protocol.receive_data(piece)
                for event in self.protocol.events():
                    self._take(event)
                self._changed.set()
        self.closed = True
        self._changed.set()

    def _take(self, event: object) -> None:
        if isinstance(event, AcceptConnection):
            self.status, self.subprotocol = 101, event.subprotocol
        elif isinstance(event, RejectConnection):
            self.status = event.status_code
        elif isinstance(event, BytesMessage | TextMessage):
            self._parts.append(event.data)
            if event.message_finished:
                parts, self._parts = self._parts, []
                empty = b"" if isinstance(event, BytesMessage) else ""
                self.messages.append(empty.join(parts))
        elif isinstance(event, Pong):
            self.pongs.append(bytes(event.payload))
        elif isinstance(event, CloseConnection):
            self.close_code = event.code
            with contextlib.suppress(Exception):
                self.writer.write(self.protocol.send(event.response()))

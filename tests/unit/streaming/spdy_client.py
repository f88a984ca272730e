"""A SPDY/3.1 client of its own making: it shares nothing with the server but the dictionary's text."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import struct
import zlib
from typing import Any
from urllib.parse import urlsplit

from phantom_cri.streaming.frames import DICTIONARY


class SpdyClient:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.data: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.replied: set[int] = set()
        self.resets: dict[int, int] = {}
        self.pings: list[int] = []
        self.goaway: int | None = None
        self.closed = False
        self.names: dict[str, int] = {}
        self.next_id = 1
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.reading = asyncio.Event()
        self.reading.set()

    @classmethod
    async def connect(
        cls,
        url: str,
        *protocols: str,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        early: bytes = b"",
        **options: Any,
    ) -> SpdyClient:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=tls, **options)
        client = cls(reader, writer)
        fields = {"Host": "whatever", "Connection": "Upgrade", "Upgrade": "SPDY/3.1", **(headers or {})}
        if method == "POST":
            fields["Content-Length"] = "0"
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
        lines += [f"X-Stream-Protocol-Version: {protocol}" for protocol in protocols]
        writer.write("\r\n".join([*lines, "", ""]).encode() + early)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        client.status = int(head[0].split()[1])
        for line in filter(None, head[1:]):
            name, _, value = line.partition(": ")
            name = name.lower()
            client.headers[name] = f"{client.headers[name]}, {value}" if name in client.headers else value
        if client.status == 101:
            client._task = asyncio.create_task(client._read())
        else:
            client.body = await reader.read()
        return client

    async def stream(self, wait: bool = True, flags: int = 0, **headers: str) -> int:
        stream_id = self.next_id
        self.next_id += 2
        self.syn(stream_id, headers, flags)
        if "streamtype" in headers:
            self.names[headers["streamtype"]] = stream_id
        if wait:
            await self.until(lambda: stream_id in self.replied or stream_id in self.resets)
        return stream_id

    async def stdio(self, *names: str) -> None:
        for name in names:
            await self.stream(streamtype=name)

    def syn_frame(self, stream_id: int, headers: dict[str, str], flags: int = 0) -> bytes:
        raw = struct.pack(">I", len(headers))
        for text in (text for pair in headers.items() for text in pair):
            raw += struct.pack(">I", len(text)) + text.encode()
        block = self._deflate.compress(raw) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return self.control_frame(1, struct.pack(">IIBB", stream_id, 0, 0, 0) + block, flags)

    def syn(self, stream_id: int, headers: dict[str, str], flags: int = 0) -> None:
        self.writer.write(self.syn_frame(stream_id, headers, flags))

    def control_frame(self, kind: int, payload: bytes, flags: int = 0) -> bytes:
        return struct.pack(">HHI", 0x8003, kind, flags << 24 | len(payload)) + payload

    def control(self, kind: int, payload: bytes, flags: int = 0) -> None:
        self.writer.write(self.control_frame(kind, payload, flags))

    def send(self, name: str | int, payload: bytes, end: bool = False) -> None:
        stream_id = name if isinstance(name, int) else self.names[name]
        self.writer.write(struct.pack(">II", stream_id, int(end) << 24 | len(payload)) + payload)

    def text(self, name: str | int) -> bytes:
        return bytes(self.data.get(name if isinstance(name, int) else self.names[name], b""))

    def result(self) -> Any:
        return json.loads(self.text("error"))

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
        try:
            while True:
                await self.reading.wait()
                first, second = struct.unpack(">II", await self.reader.readexactly(8))
                payload = await self.reader.readexactly(second & 0xFFFFFF)
                if first & 0x8000_0000:
                    assert first >> 16 == 0x8003
                    self._control(first & 0xFFFF, second >> 24, payload)
                else:
                    self._data(first, second >> 24, payload)
                self._changed.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed = True
            self._changed.set()

    def _data(self, stream_id: int, flags: int, payload: bytes) -> None:
        assert stream_id in self.replied, "data before SYN_REPLY is lost on real clients"
        assert stream_id not in self.ended
        self.data.setdefault(stream_id, bytearray()).extend(payload)
        if flags & 1:
            self.ended.add(stream_id)

    def _control(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == 2:
            (stream_id,) = struct.unpack_from(">I", payload)
            assert self._inflate.decompress(payload[4:]) == bytes(4)
            self.replied.add(stream_id)
        elif kind == 3:
            stream_id, status = struct.unpack(">II", payload)
            self.resets[stream_id] = status
        elif kind == 6:
            self.pings.append(*struct.unpack(">I", payload))
        elif kind == 7:
            _, self.goaway = struct.unpack(">II", payload)
        else:
            raise AssertionError(f"unexpected control frame {kind}")

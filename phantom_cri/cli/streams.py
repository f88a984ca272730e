"""The client of an exec or attach: a WebSocket to the daemon's URL, v5.channel.k8s.io."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from wsproto import WSConnection
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import ProtocolError

from phantom_cri.cli.failure import Failure

PROTOCOL = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, STATUS, RESIZE = range(5)
END_OF_CHANNEL = 255

CHUNK = 64 << 10
READ_LIMIT = 1 << 20
CONNECT_TIMEOUT_S = 30


class Ended(NamedTuple):
    """The end of a session: its exit code, or the reason without one.

    `lost`: the connection or the daemon ended first.
    """

    exit_code: int
    failure: str = ""
    lost: bool = False


class Streams:
    """A connected session. Output is written directly to file descriptors 1 and 2."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._channel = -1
        self._first = True
        self._status = bytearray()
        self.input_ended = False

    async def greet(self, host: str, target: str) -> None:
        """The handshake. Raises Failure with the server's message."""
        self._send(Request(host=host, target=target, subprotocols=[PROTOCOL]))
        refused, said = 0, bytearray()
        async for event in self._events():
            if isinstance(event, AcceptConnection):
                return
            if isinstance(event, RejectConnection):
                refused = event.status_code
                if event.has_body is False:
                    break
            elif isinstance(event, RejectData):
                said += event.data
                if event.body_finished:
                    break
        reason = (
            said.decode(errors="replace").strip() or f"status {refused}" if refused else "connection closed"
        )
        raise Failure(f"the streaming server refused the connection: {reason}")

    async def receive(self) -> Ended:
        """Copies output until the session has ended."""
        async for event in self._events():
            if isinstance(event, BytesMessage):
                self._take(event)
            elif isinstance(event, CloseConnection):
                if event.code == CloseReason.GOING_AWAY:
                    return self._ended()._replace(lost=True)
                break
        return self._ended()

    def resize(self, width: int, height: int) -> None:
        if width and height:
            self._message(RESIZE, json.dumps({"Width": width, "Height": height}).encode())

    async def send_input(self, piece: bytes) -> None:
        """Waits while the server does not read."""
        self._message(STDIN, piece)
        with contextlib.suppress(ConnectionError):  # reported by `receive`
            await self._writer.drain()

    def end_input(self) -> None:
        self.input_ended = True
        self._send(BytesMessage(data=bytes((END_OF_CHANNEL, STDIN))))

    async def _events(self) -> AsyncIterator[Event]:
        """All events until the connection ends."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while True:
                try:
                    for event in self._protocol.events():
                        if isinstance(event, Ping):
                            self._send(event.response())
                        else:
                            yield event
                    piece = await self._reader.read(READ_LIMIT)
                    if not piece:
                        return
                    self._protocol.receive_data(piece)
                except ProtocolError as error:
                    raise Failure(f"the streaming server does not speak WebSocket: {error}") from None

    def _take(self, event: BytesMessage) -> None:
        part = memoryview(event.data)
        if self._first and part:
            self._channel, part = part[0], part[1:]
        self._first = event.message_finished
        if self._channel == STATUS:
            self._status += part
        elif self._channel in (STDOUT, STDERR) and part:
            write_all(self._channel, part)

    def _ended(self) -> Ended:
        if not self._status:
            return Ended(0, "the connection to the container was lost", lost=True)
        try:
            status = json.loads(self._status)
            if status["status"] == "Success":
                return Ended(0)
            for cause in status.get("details", {}).get("causes", ()):
                if cause.get("reason") == "ExitCode":
                    return Ended(int(cause["message"]) & 0xFF)
            return Ended(0, status["message"].removeprefix("Internal error occurred: "))
        except (ValueError, LookupError, TypeError, AttributeError):
            return Ended(0, f"invalid status from the server: {bytes(self._status[:200])!r}")

    def _message(self, channel: int, content: bytes) -> None:
        self._send(BytesMessage(data=bytes((channel,)) + content))

    def _send(self, event: Event) -> None:
        if self._protocol.state in (ConnectionState.OPEN, ConnectionState.CONNECTING):
            self._writer.write(self._protocol.send(event))


@asynccontextmanager
async def connected(url: str, tls_ca: str) -> AsyncIterator[Streams]:
    """Raises Failure. `tls_ca`: file with the authority that signed the server's certificate, else empty."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Failure(f"the daemon returned an invalid URL: {url!r}")
    reader, writer = await _connection(parts, tls_ca)
    streams = Streams(reader, writer)
    try:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await streams.greet(parts.netloc, parts.path)
        except TimeoutError:
            raise Failure(f"the streaming server at {parts.netloc} does not answer") from None
        yield streams
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _connection(parts: SplitResult, tls_ca: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        context = ssl.create_default_context(cafile=tls_ca or None) if parts.scheme == "https" else None
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            return await asyncio.open_connection(parts.hostname, parts.port, ssl=context, limit=READ_LIMIT)
    except (OSError, TimeoutError) as error:
        hint = "; --tls-ca names the authority to trust" if isinstance(error, ssl.SSLError) else ""
        raise Failure(f"cannot connect to the streaming server at {parts.netloc}: {error}{hint}") from None


async def input_pieces(fd: int) -> AsyncIterator[bytes]:
    """Input from `fd`, a terminal, pipe, socket or file, as it arrives.

    The descriptor stays blocking: its open file is shared with our parent (open(2), O_NONBLOCK).
    """
    while True:
        await _readable(fd)
        try:
            piece = os.read(fd, CHUNK)
        except OSError:  # EIO: the terminal is gone; EBADF: started without standard input
            return
        if not piece:
            return
        yield piece


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except OSError:  # epoll(7) does not support files, which can always be read
        await asyncio.sleep(0)
        return
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


def write_all(fd: int, content: memoryview) -> None:
    """Waits for a slow reader. Raises BrokenPipeError if it is gone."""
    while content:
        try:
            content = content[os.write(fd, content) :]
        except BlockingIOError:  # another process made our standard output non-blocking
            select.select((), (fd,), ())

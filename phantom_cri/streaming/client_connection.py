"""One client's TCP or TLS connection: back-pressure, idle timeout, and a close that loses no data."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from typing import Protocol, cast

log = logging.getLogger(__name__)

HIGH_WATER = 256 << 10
"""Bytes buffered for a slow client before its producers are paused."""

FLOOD = 4 * HIGH_WATER
"""A client that requests answers (pings) without reading them is disconnected at this number of bytes."""

LINGER_S = 5.0
"""Seconds for a client to close its side after ours: closing a socket with unread input resets the
connection, and the client may lose output that it has not read yet (RFC 1122, 4.2.2.13)."""

HELD_CHECK_S = 1.0

_RECEIVED = memoryview(bytearray(256 << 10))
"""The receive buffer of all connections: a handler uses or copies its input before it returns, and the
daemon's only event loop calls one handler at a time."""

_TCP_ESTABLISHED = 1  # include/net/tcp_states.h


class Link(Protocol):
    """What a handler writes to: a `ClientConnection`, or a tunnel inside one."""

    def write(self, *parts: bytes | memoryview) -> None:
        """Sends the parts in order. The caller may reuse them when this returns."""
        ...

    def reply(self, frame: bytes) -> None:
        """As `write`, for answers of which a client can request any number."""
        ...

    def hold(self) -> None:
        """Pause input until `release`; calls are counted."""
        ...

    def release(self) -> None: ...

    def finish(self) -> None:
        """Sends pending data and closes; nothing more is received or written."""
        ...


class ProtocolHandler(Protocol):
    """Handles the bytes received from a link."""

    def receive(self, chunk: memoryview) -> None:
        """`chunk` is only valid until this returns."""
        ...

    def gone(self) -> None:
        """The client has disconnected. Called once, and not after `Link.finish`."""
        ...

    def output_paused(self) -> None: ...

    def output_resumed(self) -> None: ...

    def shut_down(self) -> None:
        """The server stops: notify the client, finish the link, cancel running work."""
        ...


class _Silence:
    """The handler of a closing connection: input is dropped."""

    def receive(self, chunk: memoryview) -> None: ...

    def gone(self) -> None: ...

    def output_paused(self) -> None: ...

    def output_resumed(self) -> None: ...

    def shut_down(self) -> None: ...


class ClientConnection(asyncio.BufferedProtocol):
    """An accepted connection. `greet` returns its first handler; `ended` is called when it is closed."""

    def __init__(
        self,
        greet: Callable[[ClientConnection], ProtocolHandler],
        ended: Callable[[ClientConnection], None],
        idle_timeout_s: float,
    ) -> None:
        self.handler: ProtocolHandler = _Silence()
        self._greet = greet
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._idle_timeout_s = idle_timeout_s
        self._moved = 0.0
        self._held = 0
        self._finishing = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._fd = -1

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        self._tcp: socket.socket = transport.get_extra_info("socket")
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if transport.get_extra_info("sslcontext") is None:
            self._fd = self._tcp.fileno()
        self.handler = self._greet(self)
        self.idle_after(self._idle_timeout_s)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _RECEIVED

    def buffer_updated(self, nbytes: int) -> None:
        self.take(_RECEIVED[:nbytes])

    def take(self, chunk: memoryview) -> None:
        """An unexpected exception closes this connection, not the others."""
        self._moved = self._loop.time()
        try:
            self.handler.receive(chunk)
        except Exception:
            log.exception("streaming: unexpected error, connection closed")
            self.abort()

    def eof_received(self) -> bool:
        self._leave()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._fd = -1
        self._finishing = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._leave()
        self._ended(self)

    def pause_writing(self) -> None:
        self.handler.output_paused()

    def resume_writing(self) -> None:
        self._moved = self._loop.time()
        self.handler.output_resumed()

    # the handler's side

    def write(self, *parts: bytes | memoryview) -> None:
        if self._finishing:
            return
        self._moved = self._loop.time()
        sent = 0
        # Directly to the socket: asyncio would join the parts, and since 3.12 keep them without a copy.
        if self._fd >= 0 and not self._transport.get_write_buffer_size():
            try:
                sent = os.writev(self._fd, parts)
            except BlockingIOError:
                pass
            except OSError:
                self.abort()
                return
        rest = b"".join(parts) if sent == 0 else _after(parts, sent)
        if rest:
            self._transport.write(rest)

    def reply(self, frame: bytes) -> None:
        if self._transport.get_write_buffer_size() > FLOOD:
            self.abort()
        else:
            self.write(frame)

    def hold(self) -> None:
        self._held += 1
        if self._held == 1 and not self._finishing:
            self._transport.pause_reading()
            self._set_timer("held", HELD_CHECK_S, self._check_held)

    def release(self) -> None:
        self._held -= 1
        if self._held == 0 and not self._finishing:
            self._drop_timer("held")
            self._transport.resume_reading()

    def finish(self) -> None:
        if self._finishing:
            return
        self._finishing = True
        self.handler = _Silence()
        if self._held:
            self._drop_timer("held")
            self._transport.resume_reading()
        if self._transport.can_write_eof():
            try:
                self._transport.write_eof()
            except OSError:  # the client has reset the connection
                self.abort()
            else:
                self._linger()
        else:
            self._transport.close()  # TLS sends its own close, and reads until the client has answered
            self._set_timer("idle", self._idle_timeout_s, self.abort)

    def abort(self) -> None:
        """Closes at once; unsent data is lost. The handler's `gone` is called."""
        self._finishing = True
        self._transport.abort()

    def idle_after(self, seconds: float) -> None:
        """Closes the connection after this time without data in either direction."""
        self._idle_timeout_s = seconds
        self._moved = self._loop.time()
        self._set_timer("idle", seconds, self._check_idle)

    # private

    def _leave(self) -> None:
        handler, self.handler = self.handler, _Silence()
        handler.gone()

    def _check_idle(self) -> None:
        left = self._moved + self._idle_timeout_s - self._loop.time()
        if left > 0:
            self._set_timer("idle", left, self._check_idle)
        else:
            self.abort()

    def _check_held(self) -> None:
        """Detects a disconnect by the socket's state, since a paused socket does not report it."""
        state = self._tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if state == _TCP_ESTABLISHED:
            self._set_timer("held", HELD_CHECK_S, self._check_held)
        else:
            self.abort()

    def _linger(self, unsent: int = -1, stalled_s: float = 0) -> None:
        """Wait until the client has closed its side. One that still reads our data gets the idle timeout."""
        now_unsent = self._transport.get_write_buffer_size()
        stalled_s = 0 if now_unsent != unsent else stalled_s + LINGER_S
        if (unsent == 0 and now_unsent == 0) or stalled_s >= self._idle_timeout_s:
            self.abort()
        else:
            self._set_timer("idle", LINGER_S, lambda: self._linger(now_unsent, stalled_s))

    def _set_timer(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        self._drop_timer(name)
        self._timers[name] = self._loop.call_later(seconds, call)

    def _drop_timer(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer:
            timer.cancel()


def _after(parts: tuple[bytes | memoryview, ...], sent: int) -> bytes:
    """The bytes of `parts` after the first `sent` ones."""
    rest = []
    for part in parts:
        if sent < len(part):
            rest.append(part[sent:])
        sent = max(0, sent - len(part))
    return b"".join(rest)

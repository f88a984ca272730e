"""One client's TCP or TLS connection: back-pressure, idling, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from typing import Protocol, cast

log = logging.getLogger(__name__)

HIGH_WATER = 256 << 10
"""Bytes that may wait for a slow client before those who produce them are paused."""

FLOOD = 4 * HIGH_WATER
"""A client that asks for answers (pings) without reading them is cut off beyond so many bytes."""

LINGER_S = 5.0
"""How long a client may take to close its side after ours: closing a socket that still holds unread input
resets the connection, and then the client may lose output that it has not read yet (RFC 1122, 4.2.2.13)."""

HELD_CHECK_S = 1.0

_RECEIVED = memoryview(bytearray(256 << 10))
"""Where all lines of the process receive: a speaker takes or copies what it is given before it returns, and
the daemon's one event loop calls one speaker at a time."""

_TCP_ESTABLISHED = 1  # include/net/tcp_states.h


class Link(Protocol):
    """What a speaker writes to: a `Line`, or a tunnel inside one."""

    def write(self, *parts: bytes | memoryview) -> None:
        """Sends the parts one after the other. They are the caller's again when this returns."""
        ...

    def reply(self, frame: bytes) -> None:
        """As `write`, for answers that a client can ask for without end."""
        ...

    def hold(self) -> None:
        """No more input until `release`; calls are counted."""
        ...

    def release(self) -> None: ...

    def finish(self) -> None:
        """Sends what was written and closes; nothing is received or written any more."""
        ...


class ProtocolHandler(Protocol):
    """Who understands what comes over a link."""

    def receive(self, chunk: memoryview) -> None:
        """`chunk` is only good until this returns."""
        ...

    def gone(self) -> None:
        """The client has left. Called once, and not after `Link.finish`."""
        ...

    def output_paused(self) -> None: ...

    def output_resumed(self) -> None: ...

    def shut_down(self) -> None:
        """The server ends: tell the client, finish the link, cancel what runs."""
        ...


class _Silence:
    """Speaks for a line that is being closed: what still comes is thrown away."""

    def receive(self, chunk: memoryview) -> None: ...

    def gone(self) -> None: ...

    def output_paused(self) -> None: ...

    def output_resumed(self) -> None: ...

    def shut_down(self) -> None: ...


class ClientConnection(asyncio.BufferedProtocol):
    """An accepted connection. `greet` makes its first speaker; `ended` is called when all is closed."""

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
        """A bug of ours ends this one connection, not the others."""
        self._moved = self._loop.time()
        try:
            self.handler.receive(chunk)
        except Exception:
            log.exception("streaming: a connection is dropped")
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

    # the speaker's side

    def write(self, *parts: bytes | memoryview) -> None:
        if self._finishing:
            return
        self._moved = self._loop.time()
        sent = 0
        # Straight to the socket: asyncio would join the parts, and from 3.12 on keep them without a copy.
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
            self._transport.close()  # TLS says goodbye by itself, and reads on until the client has answered
            self._set_timer("idle", self._idle_timeout_s, self.abort)

    def abort(self) -> None:
        """Closes at once; what was not sent is lost. The speaker hears that the client is gone."""
        self._finishing = True
        self._transport.abort()

    def idle_after(self, seconds: float) -> None:
        """Closes the line when nothing has moved in either direction for so long."""
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
        """A socket that is not read does not tell that its client has left; its state does."""
        state = self._tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if state == _TCP_ESTABLISHED:
            self._set_timer("held", HELD_CHECK_S, self._check_held)
        else:
            self.abort()

    def _linger(self, unsent: int = -1, stalled_s: float = 0) -> None:
        """Until the client has closed its side. One that still reads what we sent is given the idle time."""
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
    """What of `parts` follows the first `sent` bytes."""
    rest = []
    for part in parts:
        if sent < len(part):
            rest.append(part[sent:])
        sent = max(0, sent - len(part))
    return b"".join(rest)

"""A WebSocket connection (RFC 6455), server side: messages in parts of any size, pings, and close."""

from __future__ import annotations

from typing import Protocol

from wsproto import WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason

from phantom_cri.streaming.client_connection import Link


class MessageTaker(Protocol):
    """Handles the messages of a connection."""

    def begin(self) -> None:
        """The handshake is complete."""
        ...

    def take(self, part: bytes, first: bool, last: bool) -> None:
        """A part of a message; text as UTF-8."""
        ...

    def gone(self) -> None: ...

    def output_paused(self) -> None: ...

    def output_resumed(self) -> None: ...

    def shut_down(self) -> None: ...


class WebSocket:
    """The `ProtocolHandler` of a link, for a taker. `accepted`: after its handshake."""

    def __init__(self, link: Link, accepted: WSConnection) -> None:
        self._link = link
        self._protocol = accepted
        self._first = True
        self._over = False
        self.taker: MessageTaker

    def receive(self, chunk: memoryview) -> None:
        if self._over:
            return
        self._protocol.receive_data(chunk)  # type: ignore[arg-type]  # appended to a bytearray
        for event in self._protocol.events():
            if isinstance(event, BytesMessage):
                self._take(bytes(event.data), event.message_finished)
            elif isinstance(event, TextMessage):
                self._take(event.data.encode(), event.message_finished)
            elif isinstance(event, Ping):
                self._link.reply(self._protocol.send(event.response()))
            elif isinstance(event, CloseConnection):
                # The client's close, or wsproto's code for a malformed frame: both are answered with the same
                # code.
                self.finish(event.code)
                self.taker.gone()
            if self._over:
                return

    def gone(self) -> None:
        if not self._over:
            self._over = True
            self.taker.gone()

    def output_paused(self) -> None:
        self.taker.output_paused()

    def output_resumed(self) -> None:
        self.taker.output_resumed()

    def shut_down(self) -> None:
        self.taker.shut_down()

    def send(self, message: bytes | str) -> None:
        if not self._over:
            event = BytesMessage(data=message) if isinstance(message, bytes) else TextMessage(data=message)
            self._link.write(self._protocol.send(event))

    def reply(self, message: bytes) -> None:
        """As `send`, for answers of which a client can request any number."""
        if not self._over:
            self._link.reply(self._protocol.send(BytesMessage(data=message)))

    def finish(self, code: int = CloseReason.NORMAL_CLOSURE, reason: str | None = None) -> None:
        if self._over:
            return
        self._over = True
        if self._protocol.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
            self._link.write(self._protocol.send(CloseConnection(code=code, reason=reason)))
        self._link.finish()

    def _take(self, part: bytes, last: bool) -> None:
        first, self._first = self._first, last
        self.taker.take(part, first, last)

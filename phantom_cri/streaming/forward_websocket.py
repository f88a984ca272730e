"""Port-forward over WebSocket: the old protocol with channels, and SPDY inside a WebSocket."""

from __future__ import annotations

import struct

from wsproto.frame_protocol import CloseReason

from phantom_cri.streaming.client_connection import Link
from phantom_cri.streaming.flows import Budget
from phantom_cri.streaming.forward import Forward
from phantom_cri.streaming.forward_spdy import INPUT_LIMIT
from phantom_cri.streaming.messages import ChannelReader, encode
from phantom_cri.streaming.pending import PendingForward, Settings
from phantom_cri.streaming.spdy import Spdy
from phantom_cri.streaming.websocket import WebSocket

TUNNEL = "SPDY/3.1+portforward.k8s.io"
PROTOCOLS = (TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "")


class WebSocketForward:
    """A `MessageTaker`: port i has channel 2i for its only connection and 2i + 1 for errors."""

    def __init__(
        self, pending: PendingForward, protocol: str, link: Link, socket: WebSocket, settings: Settings
    ) -> None:
        self._socket = socket
        self._spawn = settings.spawn
        self._base64 = "base64" in protocol
        budget = Budget(link, INPUT_LIMIT)
        self._ports = [_Port(self, index, pending, port, budget) for index, port in enumerate(pending.ports)]
        self._open = len(self._ports)
        self._reader = ChannelReader(self._base64)

    def begin(self) -> None:
        if not self._ports:
            self._socket.finish(CloseReason.POLICY_VIOLATION, "no ports were requested")
            return
        for port in self._ports:
            port.greet()
        for port in self._ports:
            port.forward.begin(self._spawn)

    def take(self, part: bytes, first: bool, last: bool) -> None:
        try:
            channel, part = self._reader.read(part, first, last)
        except ValueError:
            self._socket.finish(CloseReason.INVALID_FRAME_PAYLOAD_DATA, "not base64")
            self.gone()
            return
        if part and channel % 2 == 0 and channel // 2 < len(self._ports):
            self._ports[channel // 2].forward.take(memoryview(part))

    def send(self, channel: int, chunk: bytes | memoryview) -> None:
        self._socket.send(encode(channel, memoryview(chunk), self._base64))

    def port_closed(self) -> None:
        self._open -= 1
        if not self._open:
            self._socket.finish()

    def gone(self) -> None:
        for port in self._ports:
            port.forward.stop()

    def output_paused(self) -> None:
        for port in self._ports:
            port.forward.pause()

    def output_resumed(self) -> None:
        for port in self._ports:
            port.forward.resume()

    def shut_down(self) -> None:
        self._socket.finish(CloseReason.GOING_AWAY)
        self.gone()


class _Port:
    """A `ForwardWire`."""

    def __init__(
        self, whole: WebSocketForward, index: int, pending: PendingForward, port: int, budget: Budget
    ) -> None:
        self._whole = whole
        self._channel = 2 * index
        self._number = struct.pack("<H", port)
        self.forward = Forward(pending, port, self, budget)

    def greet(self) -> None:
        for channel in (self._channel, self._channel + 1):
            self._whole.send(channel, self._number)

    def send(self, chunk: memoryview) -> None:
        self._whole.send(self._channel, chunk)

    def end(self) -> None:
        """Ignored: a channel cannot be half-closed."""
        self.forward.take_end()

    def close(self, error: str) -> None:
        if error:
            self._whole.send(self._channel + 1, error.encode())
        self._whole.port_closed()


class Tunnel:
    """A `MessageTaker` and a `Link`: messages are pieces of a SPDY connection, split anywhere."""

    def __init__(self, link: Link, socket: WebSocket) -> None:
        self._link = link
        self._socket = socket
        self.spdy: Spdy

    def begin(self) -> None: ...

    def take(self, part: bytes, first: bool, last: bool) -> None:
        self.spdy.receive(memoryview(part))

    def gone(self) -> None:
        self.spdy.gone()

    def output_paused(self) -> None:
        self.spdy.output_paused()

    def output_resumed(self) -> None:
        self.spdy.output_resumed()

    def shut_down(self) -> None:
        self.spdy.shut_down()

    def write(self, *parts: bytes | memoryview) -> None:
        self._socket.send(b"".join(parts))

    def reply(self, frame: bytes) -> None:
        self._socket.reply(frame)

    def hold(self) -> None:
        self._link.hold()

    def release(self) -> None:
        self._link.release()

    def finish(self) -> None:
        self._socket.finish()

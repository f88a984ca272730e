"""Exec and attach over WebSocket: each message begins with its channel number."""

from __future__ import annotations

from wsproto.frame_protocol import CloseReason

from phantom_cri.streaming import status
from phantom_cri.streaming.client_connection import Link
from phantom_cri.streaming.messages import ChannelReader, encode
from phantom_cri.streaming.pending import ERROR, RESIZE, STDIN, PendingStdio, Settings
from phantom_cri.streaming.stdio import Stdio
from phantom_cri.streaming.websocket import WebSocket

PROTOCOLS = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
)
"""v5 lets the client end its input; v4 has a JSON status. The empty name: the client requested none."""

_END_OF_CHANNEL = 255


class WebSocketStdio:
    """A `MessageTaker` and a `StdioWire`."""

    def __init__(
        self, pending: PendingStdio, protocol: str, link: Link, socket: WebSocket, settings: Settings
    ) -> None:
        self._pending = pending
        self._can_end = protocol.startswith("v5.")
        self._has_status = protocol.startswith(("v4.", "v5."))
        self._base64 = "base64" in protocol
        self._socket = socket
        self._spawn = settings.spawn
        self._stdio = Stdio(pending, self, link)
        self._reader = ChannelReader(self._base64)

    # a MessageTaker

    def begin(self) -> None:
        self.send([*self._pending.outputs, ERROR][0], memoryview(b""))  # clients wait for a first message
        self._stdio.begin(self._spawn)

    def take(self, part: bytes, first: bool, last: bool) -> None:
        try:
            channel, part = self._reader.read(part, first, last)
        except ValueError:
            self._socket.finish(CloseReason.INVALID_FRAME_PAYLOAD_DATA, "not base64")
            self.gone()
            return
        if part:
            self._take(channel, part)

    def gone(self) -> None:
        self._stdio.gone()

    def output_paused(self) -> None:
        self._stdio.pause_output()

    def output_resumed(self) -> None:
        self._stdio.resume_output()

    def shut_down(self) -> None:
        self.finish(status.failed(status.STOPPED), CloseReason.GOING_AWAY)
        self.gone()

    # a StdioWire

    def send(self, channel: int, chunk: memoryview) -> None:
        self._socket.send(encode(channel, chunk, self._base64))

    def end(self, channel: int) -> None:
        """Does nothing: a channel cannot be closed, only the connection."""

    def finish(self, ending: status.Ending, reason: CloseReason = CloseReason.NORMAL_CLOSURE) -> None:
        text = ending.to_json() if self._has_status else ending.text.encode()
        if text:
            self.send(ERROR, memoryview(text))
        self._socket.finish(reason)

    # private

    def _take(self, channel: int, part: bytes) -> None:
        if channel == STDIN and self._pending.stdin:
            self._stdio.take_input(memoryview(part))
        elif channel == RESIZE:
            self._stdio.take_size(part)
        elif channel == _END_OF_CHANNEL and self._can_end and part[0] == STDIN:
            self._stdio.end_input()

"""A SPDY/3.1 connection, server side: streams, pings, resets and GOAWAY."""

from __future__ import annotations

import struct
from typing import Protocol

from phantom_cri.streaming import frames
from phantom_cri.streaming.client_connection import Link

MAX_STREAMS = 1024
"""Most open streams of one connection; more are refused."""

_CLIENT_ID_LIMIT = 0x7FFF_FFFF


class Stream:
    """One of the client's streams. `taker` gets the client's data."""

    __slots__ = ("id", "local_ended", "remote_ended", "taker")

    def __init__(self, stream_id: int) -> None:
        self.id = stream_id
        self.taker: StreamTaker | None = None
        self.local_ended = False
        self.remote_ended = False


class StreamTaker(Protocol):
    def take(self, chunk: memoryview) -> None: ...

    def take_end(self) -> None:
        """The client has closed its side of the stream."""
        ...

    def take_reset(self) -> None:
        """The client has reset the stream, in both directions."""
        ...


class Conversation(Protocol):
    """Handles the streams of a connection."""

    def opened(self, stream: Stream, headers: dict[str, str]) -> bool:
        """False refuses the stream. The client only sends data after the stream was accepted."""
        ...

    def accepted(self, stream: Stream) -> None:
        """The client was notified of the acceptance."""
        ...

    def gone(self) -> None: ...

    def output_paused(self) -> None: ...

    def output_resumed(self) -> None: ...

    def shut_down(self) -> None: ...


class Spdy:
    """The `ProtocolHandler` of a link, for a conversation."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._reader = frames.FrameReader(self)
        self._headers_in = frames.HeaderReader()
        self._headers_out = frames.HeaderWriter()
        self._streams: dict[int, Stream] = {}
        self._last_stream = 0
        self._going_away = False
        self._over = False
        self.conversation: Conversation

    # ProtocolHandler of its link

    def receive(self, chunk: memoryview) -> None:
        try:
            if not self._over:
                self._reader.feed(chunk)
        except frames.ProtocolViolation:
            self._end(frames.GOAWAY_PROTOCOL_ERROR)
            self.conversation.gone()

    def gone(self) -> None:
        if not self._over:
            self._over = True
            self.conversation.gone()

    def output_paused(self) -> None:
        self.conversation.output_paused()

    def output_resumed(self) -> None:
        self.conversation.output_resumed()

    def shut_down(self) -> None:
        self.conversation.shut_down()

    # for the conversation

    def send(self, stream: Stream, chunk: bytes | memoryview) -> None:
        if not stream.local_ended:
            self._link.write(frames.data_header(stream.id, len(chunk)), chunk)

    def end(self, stream: Stream, last: bytes = b"") -> None:
        """Closes our side of the stream, after `last`."""
        if not stream.local_ended:
            stream.local_ended = True
            self._link.write(frames.data_header(stream.id, len(last), frames.FIN) + last)
            self._forget_if_over(stream)

    def reset(self, stream: Stream, status: int = frames.CANCEL) -> None:
        if self._streams.pop(stream.id, None):
            stream.local_ended = stream.remote_ended = True
            self._link.reply(frames.reset(stream.id, status))

    def finish(self) -> None:
        """Resets open streams, sends GOAWAY and closes the link."""
        self._end(frames.GOAWAY_OK)

    # FrameTaker of its reader

    def take_data(self, stream_id: int, chunk: memoryview) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            if stream_id > self._last_stream:
                self._link.reply(frames.reset(stream_id, frames.INVALID_STREAM))
        elif stream.remote_ended:
            self._drop(stream, frames.ALREADY_CLOSED)
        elif stream.taker:
            stream.taker.take(chunk)

    def take_end(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream and not stream.remote_ended:
            self._end_remote(stream)

    def take_control(self, kind: int, flags: int, payload: bytes) -> None:
        if self._over:
            return
        try:
            if kind == frames.SYN_STREAM:
                self._open(flags, payload)
            elif kind == frames.RST_STREAM:
                stream_id, _ = struct.unpack(">II", payload)
                self._take_reset(stream_id)
            elif kind == frames.PING:
                (number,) = struct.unpack(">I", payload)
                if number % 2:  # clients' pings are odd; an even one would be an answer to ours
                    self._link.reply(frames.control(frames.PING, payload))
            elif kind == frames.GOAWAY:
                self._going_away = True
                self._leave_if_idle()
            elif kind in (frames.HEADERS, frames.SYN_REPLY):
                self._headers_in.read(payload[4:])  # ignored, but the zlib stream needs every block
        except struct.error:
            raise frames.ProtocolViolation(f"control frame {kind} of {len(payload)} bytes") from None

    def _open(self, flags: int, payload: bytes) -> None:
        stream_id = struct.unpack_from(">IIBB", payload)[0] & _CLIENT_ID_LIMIT
        headers = self._headers_in.read(payload[10:])
        if stream_id % 2 == 0:
            raise frames.ProtocolViolation(f"client's stream {stream_id}")
        if stream_id <= self._last_stream or flags & frames.UNIDIRECTIONAL:
            self._refuse(stream_id, frames.PROTOCOL_ERROR)
            return
        self._last_stream = stream_id
        if self._going_away or len(self._streams) >= MAX_STREAMS:
            self._link.reply(frames.reset(stream_id, frames.REFUSED_STREAM))
            return
        stream = self._streams[stream_id] = Stream(stream_id)
        if not self.conversation.opened(stream, headers):
            self.reset(stream, frames.PROTOCOL_ERROR)
            return
        reply = struct.pack(">I", stream_id) + self._headers_out.empty()
        self._link.reply(frames.control(frames.SYN_REPLY, reply))
        if flags & frames.FIN:
            self._end_remote(stream)
        self.conversation.accepted(stream)

    def _refuse(self, stream_id: int, status: int) -> None:
        """Refuses a reused id, or a stream on which we cannot answer."""
        stream = self._streams.get(stream_id)
        if stream:
            self._drop(stream, status)
        else:
            self._link.reply(frames.reset(stream_id, status))

    def _drop(self, stream: Stream, status: int) -> None:
        self.reset(stream, status)
        if stream.taker:
            stream.taker.take_reset()

    def _take_reset(self, stream_id: int) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream:
            stream.local_ended = stream.remote_ended = True
            if stream.taker:
                stream.taker.take_reset()
        self._leave_if_idle()

    def _end_remote(self, stream: Stream) -> None:
        stream.remote_ended = True
        if stream.taker:
            stream.taker.take_end()
        self._forget_if_over(stream)

    def _forget_if_over(self, stream: Stream) -> None:
        if stream.local_ended and stream.remote_ended:
            self._streams.pop(stream.id, None)
            self._leave_if_idle()

    def _leave_if_idle(self) -> None:
        """Closes the connection after the client sent GOAWAY and reset its streams."""
        if self._going_away and not self._streams and not self._over:
            self._end(frames.GOAWAY_OK)
            self.conversation.gone()

    def _end(self, status: int) -> None:
        if self._over:
            return
        self._over = True
        for stream in list(self._streams.values()):
            self.reset(stream)
        self._link.write(frames.goaway(self._last_stream, status))
        self._link.finish()

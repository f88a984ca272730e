"""Exec and attach over SPDY: one stream per channel, including `error`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from phantom_cri.streaming import status
from phantom_cri.streaming.client_connection import Link
from phantom_cri.streaming.pending import ERROR, RESIZE, STDERR, STDIN, STDOUT, PendingStdio, Settings
from phantom_cri.streaming.spdy import Spdy, Stream
from phantom_cri.streaming.stdio import Stdio

PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
"""Supported protocols, newest first: v2 lets the client end its input, v3 resizes, v4 has a JSON status."""

_CHANNELS = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": ERROR, "resize": RESIZE}


class SpdyStdio:
    """A `Conversation` and a `StdioWire`."""

    def __init__(
        self, pending: PendingStdio, protocol: str, link: Link, spdy: Spdy, settings: Settings
    ) -> None:
        self._version = 4 - PROTOCOLS.index(protocol)
        self._spdy = spdy
        self._spawn = settings.spawn
        self._stdio = Stdio(pending, self, link)
        self._streams: dict[int, Stream] = {}
        self._awaited = {ERROR, *pending.outputs}
        if pending.stdin:
            self._awaited.add(STDIN)
        if pending.tty and self._version >= 3:
            self._awaited.add(RESIZE)
        self._timer = asyncio.get_running_loop().call_later(settings.creation_timeout_s, self._too_late)

    # a Conversation

    def opened(self, stream: Stream, headers: dict[str, str]) -> bool:
        channel = _CHANNELS.get(headers.get("streamtype", "").lower())
        if channel in self._streams:
            return False
        if channel is not None:
            self._streams[channel] = stream
            stream.taker = _Channel(channel, self._stdio, self._lost)
        return True  # a stream of an unknown kind is ignored

    def accepted(self, stream: Stream) -> None:
        if self._version == 1 and stream is self._streams.get(STDIN):
            self._spdy.end(stream)  # clients of the first version wait for this
        if self._awaited and self._awaited <= self._streams.keys():
            self._awaited = set()
            self._timer.cancel()
            self._stdio.begin(self._spawn)

    def gone(self) -> None:
        self._timer.cancel()
        self._stdio.gone()

    def output_paused(self) -> None:
        self._stdio.pause_output()

    def output_resumed(self) -> None:
        self._stdio.resume_output()

    def shut_down(self) -> None:
        # An empty error stream means success to clients.
        if ERROR in self._streams:
            self.finish(status.failed(status.STOPPED))
        else:
            self._spdy.finish()
        self.gone()

    # a StdioWire

    def send(self, channel: int, chunk: memoryview) -> None:
        self._spdy.send(self._streams[channel], chunk)

    def end(self, channel: int) -> None:
        self._spdy.end(self._streams[channel])

    def finish(self, ending: status.Ending) -> None:
        text = ending.to_json() if self._version >= 4 else ending.text.encode()
        self._spdy.end(self._streams[ERROR], text)
        self._spdy.finish()

    # private

    def _too_late(self) -> None:
        self._spdy.finish()

    def _lost(self) -> None:
        """Closes the session if the client has reset all its streams."""
        if all(stream.local_ended and stream.remote_ended for stream in self._streams.values()):
            self._spdy.finish()
            self.gone()


class _Channel:
    """A `StreamTaker` for one of the client's streams."""

    def __init__(self, channel: int, stdio: Stdio, lost: Callable[[], None]) -> None:
        self._stdio = stdio
        self._lost = lost
        self._channel = channel

    def take(self, chunk: memoryview) -> None:
        if self._channel == STDIN:
            self._stdio.take_input(chunk)
        elif self._channel == RESIZE:
            self._stdio.take_size(chunk)

    def take_end(self) -> None:
        if self._channel == STDIN:
            self._stdio.end_input()

    def take_reset(self) -> None:
        if self._channel == STDIN:
            self._stdio.end_input()
        self._lost()

"""Port-forward over SPDY: for each forwarded connection a pair of streams, `error` and `data`."""

from __future__ import annotations

import asyncio

from phantom_cri.streaming.client_connection import Link
from phantom_cri.streaming.flows import Budget
from phantom_cri.streaming.forward import Forward
from phantom_cri.streaming.pending import PendingForward, Settings
from phantom_cri.streaming.spdy import Spdy, Stream

PROTOCOL = "portforward.k8s.io"

INPUT_LIMIT = 2 << 20
"""Bytes buffered for slow servers in a pod before all of a client's connections are paused."""


class SpdyForward:
    """A `Conversation` with any number of pairs, in sequence or concurrently."""

    def __init__(self, pending: PendingForward, link: Link, spdy: Spdy, settings: Settings) -> None:
        self.pending = pending
        self.spdy = spdy
        self.settings = settings
        self.budget = Budget(link, INPUT_LIMIT)
        self.paused = False
        self._pairs: dict[str, _Pair] = {}

    def opened(self, stream: Stream, headers: dict[str, str]) -> bool:
        kind, port = headers.get("streamtype", "").lower(), headers.get("port", "")
        if kind not in ("error", "data") or not _is_port(port):
            return False
        # Old clients send no request id: their data stream directly follows the error stream.
        request = headers.get("requestid") or str(stream.id if kind == "error" else stream.id - 2)
        pair = self._pairs.get(request)
        if pair is None:
            pair = self._pairs[request] = _Pair(self, request, int(port))
        return pair.add(kind, stream)

    def accepted(self, stream: Stream) -> None:
        if isinstance(stream.taker, _Pair | _ErrorTaker):
            stream.taker.accepted()

    def gone(self) -> None:
        for pair in list(self._pairs.values()):
            pair.stop()
        self._pairs.clear()

    def output_paused(self) -> None:
        self.paused = True
        for pair in self._pairs.values():
            pair.forward.pause()

    def output_resumed(self) -> None:
        self.paused = False
        for pair in self._pairs.values():
            pair.forward.resume()

    def shut_down(self) -> None:
        self.spdy.finish()
        self.gone()

    def forget(self, request: str) -> None:
        self._pairs.pop(request, None)


class _Pair:
    """One forwarded connection. A `ForwardWire`, and the `StreamTaker` of its data stream."""

    def __init__(self, whole: SpdyForward, request: str, port: int) -> None:
        self._whole = whole
        self._request = request
        self._port = port
        self._streams: dict[str, Stream] = {}
        self._begun = False
        self.forward = Forward(whole.pending, port, self, whole.budget)
        if whole.paused:
            self.forward.pause()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(whole.settings.creation_timeout_s, self._too_late)

    def add(self, kind: str, stream: Stream) -> bool:
        if kind in self._streams:
            return False
        self._streams[kind] = stream
        stream.taker = self if kind == "data" else _ErrorTaker(self)
        return True

    def accepted(self) -> None:
        if len(self._streams) == 2 and not self._begun:
            self._begun = True
            self._timer.cancel()
            self.forward.begin(self._whole.settings.spawn)

    def stop(self) -> None:
        self._timer.cancel()
        self.forward.stop()

    def lose_error_stream(self) -> None:
        """Errors cannot be reported any more; an established connection continues."""
        if not self._begun:
            self.take_reset()

    def _too_late(self) -> None:
        (missing,) = {"error", "data"} - self._streams.keys()
        self.forward.stop()
        self.close(f"timed out waiting for the {missing} stream of request {self._request!r:.40}")

    # StreamTaker of the data stream

    def take(self, chunk: memoryview) -> None:
        self.forward.take(chunk)

    def take_end(self) -> None:
        self.forward.take_end()

    def take_reset(self) -> None:
        """Clients also close the connection like this."""
        self.stop()
        self.close("")

    # a ForwardWire

    def send(self, chunk: memoryview) -> None:
        self._whole.spdy.send(self._streams["data"], chunk)

    def end(self) -> None:
        self._whole.spdy.end(self._streams["data"])

    def close(self, error: str) -> None:
        self._whole.forget(self._request)
        if "error" in self._streams:
            self._whole.spdy.end(self._streams["error"], error.encode())
        if "data" in self._streams:
            if error:
                self._whole.spdy.reset(self._streams["data"])
            else:
                self._whole.spdy.end(self._streams["data"])


class _ErrorTaker:
    """A `StreamTaker`: clients close their side of an error stream at once, and send nothing on it."""

    def __init__(self, pair: _Pair) -> None:
        self._pair = pair

    def accepted(self) -> None:
        self._pair.accepted()

    def take(self, chunk: memoryview) -> None: ...

    def take_end(self) -> None: ...

    def take_reset(self) -> None:
        self._pair.lose_error_stream()


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65536

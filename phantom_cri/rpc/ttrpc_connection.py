"""One client's connection, of which a request is never lost: also when this process is killed at any moment.

A request is taken from the socket only after its journal has it, and leaves the journal only after its answer
was sent. So whoever has the socket and the journal can go on: no request is missing, and one that comes twice
is known by its stream id.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from collections.abc import Callable
from typing import NamedTuple, Protocol

from phantom_cri.errors import DataLoss
from phantom_cri.rpc.ttrpc import HEAD, LARGEST, Frame

log = logging.getLogger(__name__)

WHOLE = 64 << 10
"""Bytes of the largest frame looked at before it is taken: a larger one is not safe while it comes."""

_PIECE = 1 << 18
_RETRY_S = 0.001


class Journal(Protocol):
    """Where a connection's unanswered requests lie. Raises OSError."""

    def add(self, stream: int, frame: bytes) -> None: ...

    def done(self, stream: int) -> None: ...

    def keep(self, peer: socket.socket | None) -> None:
        """Keep the connection itself, or no longer (None)."""
        ...


class Connection:
    """Owns a connected socket.

    `on_frame` gets each request once, with the highest stream id before it, and whether an earlier process
    may have served it; `on_closed` comes once, at the end.
    """

    def __init__(
        self,
        peer: socket.socket,
        on_frame: Callable[[Connection, Frame, int, bool], None],
        on_closed: Callable[[Connection], None],
    ) -> None:
        self._peer = peer
        self._on_frame, self._on_closed = on_frame, on_closed
        self._journal: Journal | None = None
        self._pending: dict[int, bytes] = {}
        self._resumed: set[int] = set()  # may be in the socket still
        self._last = 0
        self._unsent = bytearray()
        self._large: _Large | None = None  # being read
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.is_open = True
        peer.setblocking(False)
        self._loop.add_reader(peer, self._readable)

    @property
    def is_journalled(self) -> bool:
        return self._journal is not None

    def journal_to(self, journal: Journal) -> None:
        """From now on it survives this process, with all requests that have no answer yet. Raises OSError."""
        for stream, frame in self._pending.items():
            journal.add(stream, frame)
        journal.keep(self._peer)
        self._journal = journal

    def resume(self, journal: Journal, requests: dict[int, bytes]) -> None:
        """Go on with what an earlier process has left unanswered, before anything new."""
        self._journal = journal
        self._resumed = set(requests)
        for _, frame in sorted(requests.items()):
            self._take(frame, again=True)

    def answer(self, stream: int, response: bytes) -> None:
        """Send the response to a request, now or as soon as the other side takes it."""
        if not self.is_open:
            return
        self._pending.pop(stream, None)
        self._unsent += response
        self._writable()
        if self._journal is not None:
            try:
                self._journal.done(stream)
            except OSError as error:
                log.warning("an answered request would be served again: %s", error)

    def close(self, *, keep: bool = False) -> None:
        """Hang up, or `keep` what was journalled for a later process; idempotent."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._peer)
        self._loop.remove_writer(self._peer)
        if self._timer is not None:
            self._timer.cancel()
        if self._journal is not None and not keep:
            for stream in self._pending:
                self._journal.done(stream)
            self._journal.keep(None)
        self._peer.close()
        self._on_closed(self)

    def _readable(self) -> None:
        try:
            if self._large is None:
                self._read()
            else:
                self._read_large(self._large)
        except BlockingIOError:
            return
        except (OSError, DataLoss) as error:
            log.warning("a ttrpc client is disconnected: %s", error)
            self.close()

    def _read(self) -> None:
        """All whole frames that are there. Raises OSError."""
        seen = self._peer.recv(HEAD.size + WHOLE, socket.MSG_PEEK)
        if not seen:
            self.close()
            return
        at = 0
        while self.is_open and len(seen) - at >= HEAD.size:
            length, stream, _, _ = HEAD.unpack_from(seen, at)
            end = at + HEAD.size + length
            if length > WHOLE:
                self._begin_large()
                return
            if end > len(seen):
                break
            frame = seen[at:end]
            if stream > self._last and self._journal is not None:
                self._journal.add(stream, frame)
            self._peer.recv(end - at)
            if stream not in self._resumed:
                self._take(frame)
            at = end
        if self.is_open and at == 0:
            # What is there of the frame keeps the socket readable, which would spin the loop.
            self._loop.remove_reader(self._peer)
            self._timer = self._loop.call_later(_RETRY_S, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        poll = select.poll()
        poll.register(self._peer, select.POLLRDHUP)
        has_ended = bool(poll.poll(0))
        self._loop.add_reader(self._peer, self._readable)
        self._readable()
        if has_ended and self._timer is not None:
            log.warning("a ttrpc client is disconnected: it ended within a frame")
            self.close()

    def _begin_large(self) -> None:
        if self._journal is not None:
            self._journal.keep(None)
        head = self._peer.recv(HEAD.size)
        self._large = _Large(head, HEAD.unpack(head)[0], bytearray())

    def _read_large(self, large: _Large) -> None:
        """One that is too large is read to its end, and thrown away. Raises DataLoss, OSError."""
        piece = self._peer.recv(min(large.missing, _PIECE))
        if not piece:
            raise DataLoss(f"ttrpc: the connection ended {large.missing} bytes before the end of a frame")
        length, stream, kind, flags = HEAD.unpack(large.head)
        if length <= LARGEST:
            large.body.extend(piece)
        if large.missing > len(piece):
            self._large = large._replace(missing=large.missing - len(piece))
            return
        self._large = None
        if length > LARGEST:
            self._on_frame(self, Frame(stream, kind, flags, None), self._last, False)
        else:
            self._take(frame := large.head + large.body)
            if self._journal is not None and stream in self._pending:
                self._journal.add(stream, frame)
        if self._journal is not None and self.is_open:
            self._journal.keep(self._peer)

    def _take(self, frame: bytes, *, again: bool = False) -> None:
        _, stream, kind, flags = HEAD.unpack_from(frame)
        last, self._last = self._last, max(self._last, stream)
        self._pending[stream] = frame
        self._on_frame(self, Frame(stream, kind, flags, frame[HEAD.size :]), last, again)

    def _writable(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._peer.send(self._unsent)]
        except BlockingIOError:
            self._loop.add_writer(self._peer, self._writable)
            return
        except OSError as error:
            log.warning("a ttrpc client is disconnected: %s", error)
            self.close()
            return
        self._loop.remove_writer(self._peer)


class _Large(NamedTuple):
    head: bytes
    missing: int
    body: bytearray

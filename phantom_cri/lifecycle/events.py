"""What happens to pods and containers, told to whoever listens: in order, and each of it or an error.

Emitting costs next to nothing while nobody listens. Records are immutable, so an event only holds on to
those of its moment. A reader that falls behind is told so and ended: it then lists all anew, as it does
after any lost connection, whereas a silent gap would leave it wrong for ever.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from weakref import WeakSet

from phantom_cri.errors import Internal, PhantomError, ResourceExhausted
from phantom_cri.lifecycle.live import Pod
from phantom_cri.model import ContainerEvent, EventKind

log = logging.getLogger(__name__)

MOST_WAITING = 4096
"""Events that wait for one reader: 40 s of a node's fastest churn, and some MiB at most."""


class Reader:
    """One listener's events from its making on; an async iterator. It stops listening when it is let go."""

    def __init__(self) -> None:
        self._waiting: deque[ContainerEvent] = deque()
        self._moved = asyncio.Event()
        self._failure: PhantomError | None = None
        self._closed = False

    def put(self, event: ContainerEvent) -> bool:
        """False: it has fallen behind, and what waited for it is dropped."""
        if len(self._waiting) >= MOST_WAITING:
            self.fail(
                ResourceExhausted(
                    f"the reader of events fell behind by more than {MOST_WAITING} of them: "
                    "connect again, and list pods and containers anew"
                )
            )
            return False
        self._waiting.append(event)
        self._moved.set()
        return True

    def fail(self, error: PhantomError) -> None:
        """What waits is dropped, and whoever reads gets `error`."""
        self._waiting.clear()
        self._failure = error
        self._moved.set()

    def close(self) -> None:
        """What waits is still told, then it ends."""
        self._closed = True
        self._moved.set()

    def __aiter__(self) -> AsyncIterator[ContainerEvent]:
        return self

    async def __anext__(self) -> ContainerEvent:
        while not self._waiting:
            if self._failure is not None:
                raise self._failure
            if self._closed:
                raise StopAsyncIteration
            self._moved.clear()
            await self._moved.wait()
        return self._waiting.popleft()


class Events:
    def __init__(self) -> None:
        self._readers: WeakSet[Reader] = WeakSet()
        self._closed = False
        self._last = 0

    def listen(self) -> Reader:
        reader = Reader()
        if self._closed:
            reader.close()
        else:
            self._readers.add(reader)
        return reader

    @property
    def readers(self) -> int:
        return len(self._readers)

    def emit(self, kind: EventKind, pod: Pod, object_id: str) -> None:
        """After the record changed. `object_id`: the container, or the pod where it is the pod's own.

        Never fails: what it tells of has happened, and its caller cannot take that back. Readers that
        cannot be told are ended, as those that fall behind.
        """
        if not self._readers:
            return
        try:
            self._tell(kind, pod, object_id)
        except Exception:  # whatever it is, no gap may go unnoticed
            log.exception("%s of %s cannot be told: readers of events have to begin anew", kind, object_id)
            self._fail(Internal(f"events: {kind} of {object_id} could not be told: list all anew"))

    def _tell(self, kind: EventKind, pod: Pod, object_id: str) -> None:
        self._last = max(self._last + 1, time.time_ns())
        statuses = tuple(container.record for container in pod.containers.values())
        event = ContainerEvent(
            kind=kind, object_id=object_id, created_at=self._last, pod=pod.record, containers=statuses
        )
        for reader in list(self._readers):
            if not reader.put(event):
                self._readers.discard(reader)

    def _fail(self, error: PhantomError) -> None:
        for reader in list(self._readers):
            reader.fail(error)
        self._readers.clear()

    def close(self) -> None:
        """The daemon stops: every stream ends once its reader has all that happened."""
        self._closed = True
        for reader in list(self._readers):
            reader.close()
        self._readers.clear()

"""Events of pods and containers for subscribers: in order and complete, or an error.

Without subscribers emitting costs almost nothing. Records are immutable, so an event only keeps references. A
reader that falls behind is ended with an error: its client then lists everything again, as after any lost
connection, while a silent gap would leave its state wrong.
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
"""Most events queued for one reader: 40 s of a node's fastest churn, and at most some MiB."""


class Reader:
    """An async iterator over one subscriber's events since its creation. Unsubscribes when it is released."""

    def __init__(self) -> None:
        self._waiting: deque[ContainerEvent] = deque()
        self._moved = asyncio.Event()
        self._failure: PhantomError | None = None
        self._closed = False

    def put(self, event: ContainerEvent) -> bool:
        """Queue an event. False: the reader fell behind, and its queue was dropped."""
        if len(self._waiting) >= MOST_WAITING:
            self.fail(
                ResourceExhausted(
                    f"the reader of events fell behind by more than {MOST_WAITING} of them: "
                    "connect again, and list pods and containers again"
                )
            )
            return False
        self._waiting.append(event)
        self._moved.set()
        return True

    def fail(self, error: PhantomError) -> None:
        """Drop the queue and raise `error` in the reader."""
        self._waiting.clear()
        self._failure = error
        self._moved.set()

    def close(self) -> None:
        """End the iteration after the queued events."""
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
        """Call after the record changed. `object_id`: the container, or the pod for a pod's event.

        Never fails, since its caller cannot undo what happened. If an event cannot be delivered, all readers
        are ended, as those that fall behind.
        """
        if not self._readers:
            return
        try:
            self._tell(kind, pod, object_id)
        except Exception:  # whatever failed, readers must notice the gap
            log.exception("failed to emit event %s of %s: subscribers are disconnected", kind, object_id)
            self._fail(
                Internal(f"events: failed to emit {kind} of {object_id}: list pods and containers again")
            )

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
        """The daemon stops: every stream ends after its queued events."""
        self._closed = True
        for reader in list(self._readers):
            reader.close()
        self._readers.clear()

"""What happens to pods and containers, told to whoever listens: in order, and each of it or an error.

Emitting costs next to nothing while nobody listens. Records are immutable, so an event only holds on to
those of its moment. A reader that falls behind is told so and ended: it then lists all anew, as it does
after any lost connection, whereas a silent gap would leave it wrong for ever.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from weakref import WeakSet

from phantom_cri.errors import ResourceExhausted
from phantom_cri.lifecycle.live import Pod
from phantom_cri.model import ContainerEvent, EventKind

MOST_WAITING = 4096
"""Events that wait for one reader: 40 s of a node's fastest churn, and some MiB at most."""


class Reader:
    """One listener's events from its making on; an async iterator. It stops listening when it is let go."""

    def __init__(self) -> None:
        self._waiting: deque[ContainerEvent] = deque()
        self._moved = asyncio.Event()
        self._overrun = False
        self._closed = False

    def put(self, event: ContainerEvent) -> bool:
        """False: it has fallen behind, and what waited for it is dropped."""
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.clear()
            self._overrun = True
        else:
            self._waiting.append(event)
        self._moved.set()
        return not self._overrun

    def close(self) -> None:
        """What waits is still told, then it ends."""
        self._closed = True
        self._moved.set()

    def __aiter__(self) -> AsyncIterator[ContainerEvent]:
        return self

    async def __anext__(self) -> ContainerEvent:
        while not self._waiting:
            if self._overrun:
                raise ResourceExhausted(
                    f"the reader of events fell behind by more than {MOST_WAITING} of them: "
                    "connect again, and list pods and containers anew"
                )
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

    def emit(self, kind: EventKind, pod: Pod, object_id: str) -> None:
        """After the record changed. `object_id`: the container, or the pod where it is the pod's own."""
        if not self._readers:
            return
        self._last = max(self._last + 1, time.time_ns())
        statuses = tuple(container.record for container in pod.containers.values())
        event = ContainerEvent(
            kind=kind, object_id=object_id, created_at=self._last, pod=pod.record, containers=statuses
        )
        for reader in list(self._readers):
            if not reader.put(event):
                self._readers.discard(reader)

    def close(self) -> None:
        """The daemon stops: every stream ends once its reader has all that happened."""
        self._closed = True
        for reader in list(self._readers):
            reader.close()
        self._readers.clear()

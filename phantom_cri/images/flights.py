"""Work that several callers ask for at once and that is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from phantom_cri.images.threads import settled

T = TypeVar("T")


class Flights(Generic[T]):
    """By key, what is under way. The work is cancelled when the last caller who waits for it is.

    `owned`: or when the one is who began it, for it uses what is theirs; then another begins its own.
    """

    def __init__(self, *, owned: bool = False) -> None:
        self._flying: dict[Hashable, _Flight[T]] = {}
        self._owned = owned

    async def join(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """Result (or error) of the work under way for `key`; begins it when there is none."""
        while True:
            while (flight := self._flying.get(key)) is not None and flight.abandoned:
                await asyncio.wait([flight.task])  # it still holds the files that the next one needs
            is_owner = flight is None
            if flight is None:
                flight = self._flying[key] = _Flight(asyncio.ensure_future(work()))
                flight.task.add_done_callback(lambda task: self._landed(key, task))
            try:
                return await self._ride(flight, self._owned and is_owner)
            except asyncio.CancelledError:
                caller = asyncio.current_task()
                if not flight.abandoned or (caller and caller.cancelling()):
                    raise

    async def _ride(self, flight: _Flight[T], is_owner: bool) -> T:
        flight.passengers += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            if (is_owner or flight.passengers == 1) and not flight.task.done():
                flight.abandoned = True
                flight.task.cancel()
                await settled(flight.task)
            raise
        finally:
            flight.passengers -= 1

    def _landed(self, key: Hashable, task: asyncio.Future[T]) -> None:
        if not task.cancelled():
            task.exception()  # taken note of, in case nobody waits any more
        if (flight := self._flying.get(key)) is not None and flight.task is task:
            del self._flying[key]


class _Flight(Generic[T]):
    def __init__(self, task: asyncio.Future[T]) -> None:
        self.task = task
        self.passengers = 0
        self.abandoned = False

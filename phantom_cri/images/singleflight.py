"""Work that is done once for concurrent callers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from phantom_cri.concurrency import settled

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Running work by key. The work is cancelled when its last waiter is cancelled."""

    def __init__(self) -> None:
        self._flying: dict[Hashable, _Flight[T]] = {}

    async def join(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """Result (or error) of the running work for `key`; starts it if there is none."""
        while (flight := self._flying.get(key)) is not None and flight.abandoned:
            await asyncio.wait([flight.task])  # the cancelled work still uses files that the next one needs
        if flight is None:
            flight = self._flying[key] = _Flight(asyncio.ensure_future(work()))
            flight.task.add_done_callback(lambda task: self._finished(key, task))
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            if flight.waiters == 1 and not flight.task.done():
                flight.abandoned = True
                flight.task.cancel()
                await settled(flight.task)
            raise
        finally:
            flight.waiters -= 1

    def _finished(self, key: Hashable, task: asyncio.Future[T]) -> None:
        if not task.cancelled():
            task.exception()  # marks it as retrieved, in case all waiters are gone
        if (flight := self._flying.get(key)) is not None and flight.task is task:
            del self._flying[key]


class _Flight(Generic[T]):
    def __init__(self, task: asyncio.Future[T]) -> None:
        self.task = task
        self.waiters = 0
        self.abandoned = False


class SharedWork:
    """Work that each caller could do with its own connections, done by one for all as long as it progresses.

    The first caller does it; others wait. They do it themselves if the first one fails (their own connections
    may work), is cancelled, or makes no progress for `patience_s` seconds.
    """

    def __init__(self, patience_s: float | None = None) -> None:
        self._patience_s = patience_s
        self._first: dict[Hashable, _Attempt] = {}

    async def do(self, key: Hashable, work: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        """Return when the work for `key` is done. `work` gets a function to call on progress."""
        while (first := self._first.get(key)) is not None:
            outcome = await first.outcome(self._patience_s)
            if outcome == "done":
                return
            if outcome != "left":
                break
        attempt = _Attempt()
        self._first.setdefault(key, attempt)
        try:
            await work(attempt.got_on)
            attempt.end("done")
        except asyncio.CancelledError:
            attempt.end("left")
            raise
        except BaseException:
            attempt.end("failed")
            raise
        finally:
            if self._first.get(key) is attempt:
                del self._first[key]


class _Attempt:
    def __init__(self) -> None:
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._steps = 0

    def got_on(self) -> None:
        self._steps += 1

    def end(self, outcome: str) -> None:
        self._ended.set_result(outcome)

    async def outcome(self, patience_s: float | None) -> str:
        """ "done", "failed" or "left"; "stuck" without progress for `patience_s`."""
        while not self._ended.done():
            before = self._steps
            await asyncio.wait([self._ended], timeout=patience_s)
            if not self._ended.done() and self._steps == before:
                return "stuck"
        return self._ended.result()

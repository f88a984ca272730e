"""Work that several callers ask for at once and that is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from phantom_cri.concurrency import settled

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """By key, what is under way. The work is cancelled when the last caller who waits for it is."""

    def __init__(self) -> None:
        self._flying: dict[Hashable, _Flight[T]] = {}

    async def join(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """Result (or error) of the work under way for `key`; begins it when there is none."""
        while (flight := self._flying.get(key)) is not None and flight.abandoned:
            await asyncio.wait([flight.task])  # it still holds the files that the next one needs
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
            task.exception()  # taken note of, in case nobody waits any more
        if (flight := self._flying.get(key)) is not None and flight.task is task:
            del self._flying[key]


class _Flight(Generic[T]):
    def __init__(self, task: asyncio.Future[T]) -> None:
        self.task = task
        self.waiters = 0
        self.abandoned = False


class SharedWork:
    """Work that each caller could do alone, by its own means, and that one does for all while that helps.

    Whoever comes first does it; others wait for it. They do it themselves when the first one
    fails (their own means may be better), leaves, or gets nowhere for `patience_s` seconds.
    """

    def __init__(self, patience_s: float | None = None) -> None:
        self._patience_s = patience_s
        self._first: dict[Hashable, _Attempt] = {}

    async def do(self, key: Hashable, work: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        """Return once the work for `key` is done. `work` gets what to call whenever it gets on."""
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
        """ "done", "failed" or "left"; "stuck" when it did not get on for `patience_s`."""
        while not self._ended.done():
            before = self._steps
            await asyncio.wait([self._ended], timeout=patience_s)
            if not self._ended.done() and self._steps == before:
                return "stuck"
        return self._ended.result()

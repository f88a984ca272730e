"""One pool: claims take microseconds, refills run while no pods are being started.

Starting a fragment takes a millisecond or two of CPU time that the pods being started need too. So the pool
refills in pauses between claims, and competes with them only when it is less than half full.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, Literal, Protocol, TypeVar

from phantom_cri.codec import Record
from phantom_cri.concurrency import Background


class Member(Protocol):
    """What a pool needs from a fragment."""

    spawned_at: float  # time.monotonic()

    def alive(self) -> bool: ...


M = TypeVar("M", bound=Member)

RetireReason = Literal["age", "unhealthy", "dead"]

log = logging.getLogger(__name__)

QUIET_SECONDS = 0.02
"""Seconds without a claim before a refill starts, unless it is urgent."""

RETRY_SECONDS = (0.05, 0.2, 1.0, 5.0)
"""Seconds to wait after each failed start; the last one repeats."""


class PoolStatistics(Record, frozen=True):
    name: str
    size: int
    warm: int
    starting: int
    claimed: int
    hits: int
    misses: int
    retired: int
    failed_spawns: int
    oldest_seconds: float
    last_error: str = ""


class Pool(Generic[M]):
    """A pool of `size` members. `spawn` starts one, `end` removes one, `check` does a health check.

    `max_age` and `check_every` in seconds; `retired` is called with the reason for each member that ends
    unused.
    """

    def __init__(
        self,
        name: str,
        size: int,
        *,
        max_age: float,
        spawn: Callable[[], Awaitable[M]],
        end: Callable[[M], Coroutine[Any, Any, None]],
        check: Callable[[M], Awaitable[bool]],
        check_every: float = 10.0,
        retired: Callable[[RetireReason], None] = lambda reason: None,
    ) -> None:
        self.name = name
        self.size = size
        self.claimed = 0  # live pods with a fragment of this pool; decremented by the owner
        self.hits = self.misses = self.retired = self.failed_spawns = 0
        self.last_error = ""
        self._max_age, self._check_every = max_age, check_every
        self._spawn, self._end, self._check, self._told_retired = spawn, end, check, retired
        self._stock: deque[M] = deque()
        self._starting = 0
        self._last_claim = 0.0
        self._wanted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start refills and health checks; needs a running event loop."""
        if self.size == 0:
            return
        self._wanted.set()
        self._tasks = [
            asyncio.create_task(self._refill(), name=f"pool {self.name}: refill"),
            asyncio.create_task(self._look_after(), name=f"pool {self.name}: health"),
        ]

    async def stop(self) -> None:
        """End the tasks and all unclaimed members."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        while self._stock:
            await self._end(self._stock.popleft())

    def claim(self) -> M | None:
        """The oldest healthy member, or None if the pool is empty. Never waits."""
        self._last_claim = time.monotonic()
        self._wanted.set()
        while self._stock:
            member = self._stock.popleft()
            if member.alive():
                self.hits += 1
                self.claimed += 1
                return member
            self._retire(member, "dead")
        self.misses += 1
        return None

    def warm(self) -> int:
        return len(self._stock)

    def drop_dead(self) -> None:
        """Remove members that died while idle; called when a death is observed."""
        for member in list(self._stock):
            if not member.alive():
                self._discard(member, "dead")

    def _discard(self, member: M, reason: RetireReason) -> None:
        if member in self._stock:
            self._stock.remove(member)
            self._retire(member, reason)
            self._wanted.set()

    def statistics(self) -> PoolStatistics:
        oldest = time.monotonic() - self._stock[0].spawned_at if self._stock else 0.0
        return PoolStatistics(
            name=self.name,
            size=self.size,
            warm=len(self._stock),
            starting=self._starting,
            claimed=self.claimed,
            hits=self.hits,
            misses=self.misses,
            retired=self.retired,
            failed_spawns=self.failed_spawns,
            oldest_seconds=oldest,
            last_error=self.last_error,
        )

    async def _refill(self) -> None:
        failures = 0
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while len(self._stock) < self.size:
                await self._wait_for_quiet()
                if await self.spawn_one():
                    failures = 0
                else:
                    await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                    failures += 1

    async def _wait_for_quiet(self) -> None:
        while len(self._stock) * 2 >= self.size:
            quiet_for = time.monotonic() - self._last_claim
            if quiet_for >= QUIET_SECONDS:
                return
            await asyncio.sleep(QUIET_SECONDS - quiet_for)

    async def spawn_one(self) -> bool:
        """Add one member; False if that failed, with the reason in `last_error`."""
        self._starting += 1
        try:
            member = await self._spawn()
        except Exception as error:  # whatever failed, the pool must retry and report it
            self.failed_spawns += 1
            self.last_error = str(error)
            log.warning("pool %s: failed to start a fragment, retrying: %s", self.name, error)
            return False
        finally:
            self._starting -= 1
        self._stock.append(member)
        return True

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(self._check_every)
            for member in list(self._stock):
                reason = await self._unfit(member)
                if reason is not None:
                    self._discard(member, reason)

    async def _unfit(self, member: M) -> RetireReason | None:
        if time.monotonic() - member.spawned_at > self._max_age:
            return "age"
        if not member.alive():
            return "dead"
        return None if await self._check(member) else "unhealthy"

    def _retire(self, member: M, reason: RetireReason) -> None:
        self.retired += 1
        self._told_retired(reason)
        log.info("pool %s: unused fragment retired: %s", self.name, reason)
        _endings.start(self._end(member))


_endings = Background()

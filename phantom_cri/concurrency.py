"""asyncio work that must be finished although its caller is cancelled, and work that nobody waits for.

Imports nothing of ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_the_end(work: Awaitable[T]) -> T:
    """Result of `work`, which is awaited whole even if the caller is cancelled meanwhile.

    An error of the work is raised in any case; a cancellation after it, so that the caller learns first what
    has become of what it acquired.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await settled(task)
        task.result()
        raise


async def settled(future: asyncio.Future[Any]) -> None:
    """Wait until `future` is done, however often the caller is cancelled; the caller raises that itself."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue


class Background:
    """Tasks that nobody waits for. They are kept here while they run: the loop holds tasks only weakly."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str | None = None) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def wait(self) -> None:
        """Until all that run now are done, whatever becomes of them."""
        if self._tasks:
            await asyncio.wait(self._tasks)

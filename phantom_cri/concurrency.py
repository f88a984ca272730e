"""asyncio work that must finish even if its caller is cancelled, and background work.

Imports nothing of ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_the_end(work: Awaitable[T]) -> T:
    """Result of `work`, which is awaited whole even if the caller is cancelled meanwhile.

    An error of the work is always raised; a cancellation only after the work has ended, so that the caller
    knows what was acquired.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await settled(task)
        task.result()
        raise


async def settled(future: asyncio.Future[Any]) -> None:
    """Wait until `future` is done, even if cancelled repeatedly; the caller has to raise the cancellation."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue


class Background:
    """Background tasks. Referenced here until they end, as the event loop holds weak references only."""

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
        """Wait until all running tasks are done, whether or not they fail."""
        if self._tasks:
            await asyncio.wait(self._tasks)

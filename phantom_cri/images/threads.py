"""Runs blocking work in a few threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from phantom_cri.concurrency import settled

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="images")

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Result of `work` in a thread. A cancelled caller still waits until the thread is done with shared
        files and folders; then the cancellation continues.
        """
        future = asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await settled(future)
            if not future.cancelled():
                future.exception()  # marks it as retrieved: the caller gets the cancellation
            raise

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

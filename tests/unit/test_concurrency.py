from __future__ import annotations

import asyncio
import gc

import pytest

from phantom_cri.concurrency import Background, settled, to_the_end


async def cancelled_twice(caller: asyncio.Task[object], release: asyncio.Event) -> None:
    for _ in range(2):
        await asyncio.sleep(0)
        caller.cancel()
    await asyncio.sleep(0)
    assert not caller.done()
    release.set()


async def test_work_is_awaited_whole_and_the_cancellation_raised_afterwards() -> None:
    release, done = asyncio.Event(), []

    async def work() -> None:
        await release.wait()
        done.append(True)

    caller: asyncio.Task[object] = asyncio.create_task(to_the_end(work()))
    await cancelled_twice(caller, release)
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert done == [True]


async def test_an_error_of_the_work_is_raised_before_the_cancellation() -> None:
    release = asyncio.Event()

    async def work() -> None:
        await release.wait()
        raise ValueError("lost")

    caller: asyncio.Task[object] = asyncio.create_task(to_the_end(work()))
    await cancelled_twice(caller, release)
    with pytest.raises(ValueError, match="lost"):
        await caller


async def test_the_result_is_the_works() -> None:
    assert await to_the_end(asyncio.sleep(0, "result")) == "result"


async def test_settled_does_not_raise_what_the_future_holds() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_exception(ValueError("seen"))
    await settled(future)
    assert isinstance(future.exception(), ValueError)


async def test_background_tasks_survive_the_garbage_collector() -> None:
    background, release, done = Background(), asyncio.Event(), []

    async def work() -> None:
        await release.wait()
        done.append(True)

    background.start(work(), "work")
    gc.collect()
    release.set()
    await background.wait()
    assert done == [True]
    background.start(asyncio.sleep(1000))
    background.cancel()
    await background.wait()
    await background.wait()

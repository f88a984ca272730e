"""Undos run last first, all of them, and to the end."""

from __future__ import annotations

import asyncio
import logging

import pytest

from phantom_cri.undo import Undo


async def test_a_failure_undoes_everything_last_first() -> None:
    done: list[str] = []
    with pytest.raises(RuntimeError, match="third"):
        async with Undo("verb") as undo:
            undo.push("first", lambda: done.append("first"))
            undo.push("second", lambda: done.append("second"))
            raise RuntimeError("third")
    assert done == ["second", "first"]


async def test_success_undoes_nothing() -> None:
    done: list[str] = []
    async with Undo("verb") as undo:
        undo.push("first", lambda: done.append("first"))
        undo.keep()
    assert done == []


async def test_a_failing_undo_does_not_stop_the_others_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    def fail() -> None:
        raise OSError("busy")

    with caplog.at_level(logging.ERROR), pytest.raises(ValueError, match="why"):
        async with Undo("RunPodSandbox") as undo:
            undo.push("name", lambda: done.append("name"))
            undo.push("cgroup", fail)
            raise ValueError("why")
    assert done == ["name"]
    assert "RunPodSandbox: failed to clean up cgroup" in caplog.text


async def test_a_cancelled_verb_is_undone_whole_even_if_cancelled_twice() -> None:
    done: list[str] = []
    entered, undoing = asyncio.Event(), asyncio.Event()

    async def slow_undo() -> None:
        undoing.set()
        await asyncio.sleep(0.02)
        done.append("slow")

    async def verb() -> None:
        async with Undo("verb") as undo:
            undo.push("slow thing", slow_undo)
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(verb())
    await entered.wait()
    task.cancel()
    await undoing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["slow"]

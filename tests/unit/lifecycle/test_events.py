from __future__ import annotations

import asyncio
import gc

import pytest

from phantom_cri.errors import Internal, ResourceExhausted
from phantom_cri.lifecycle import events as module
from phantom_cri.lifecycle.events import Events, Reader
from phantom_cri.lifecycle.live import Pod
from phantom_cri.model import ContainerEvent, SandboxConfig, SandboxMetadata, SandboxRecord


def a_pod() -> Pod:
    config = SandboxConfig(metadata=SandboxMetadata(name="p"))
    return Pod(SandboxRecord(id="p1", config=config, created_at=1), None)


async def all_of(reader: Reader) -> list[ContainerEvent]:
    return [event async for event in reader]


async def test_whoever_falls_behind_is_told_and_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    events, pod = Events(), a_pod()
    slow, prompt = events.listen(), events.listen()
    told = []
    for number in range(5):
        events.emit("created", pod, str(number))
        told.append(await anext(prompt))
    assert [event.object_id for event in told] == ["0", "1", "2", "3", "4"]
    with pytest.raises(ResourceExhausted, match="fell behind by more than 3"):
        await anext(slow)
    events.emit("created", pod, "5")
    with pytest.raises(ResourceExhausted):
        await anext(slow)
    assert (await anext(prompt)).object_id == "5"


async def test_order_times_and_the_state_of_the_moment() -> None:
    events, pod = Events(), a_pod()
    events.emit("created", pod, "unheard")
    reader = events.listen()
    for number in range(100):
        events.emit("started", pod, str(number))
    events.close()
    told = await all_of(reader)
    assert [event.object_id for event in told] == [str(number) for number in range(100)]
    times = [event.created_at for event in told]
    assert times == sorted(set(times))
    assert told[0].pod is pod.record and told[0].containers == ()


async def test_a_reader_waits_and_all_end_with_the_daemon() -> None:
    events = Events()
    waiting = asyncio.create_task(all_of(events.listen()))
    await asyncio.sleep(0)
    events.emit("deleted", a_pod(), "x")
    await asyncio.sleep(0)
    events.close()
    assert [event.object_id for event in await waiting] == ["x"]
    assert await all_of(events.listen()) == [], "whoever comes later ends at once"


async def test_whoever_is_let_go_no_longer_listens() -> None:
    events = Events()
    reader = events.listen()
    del reader
    gc.collect()
    assert events.readers == 0


async def test_an_event_that_cannot_be_told_ends_its_readers_and_fails_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(reader: Reader, event: ContainerEvent) -> bool:
        raise MemoryError

    events = Events()
    readers = [events.listen(), events.listen()]
    events.emit("created", a_pod(), "told")
    with monkeypatch.context() as broken:
        broken.setattr(Reader, "put", full)
        events.emit("started", a_pod(), "untold")
    events.emit("stopped", a_pod(), "after a gap")
    for reader in readers:
        with pytest.raises(Internal, match="failed to emit started of untold"):
            await all_of(reader)
    later = events.listen()
    events.emit("deleted", a_pod(), "of a new reader")
    assert (await anext(later)).object_id == "of a new reader"

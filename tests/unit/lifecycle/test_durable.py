"""What gathers, what goes to the disk, and what happens while that takes nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from phantom_cri.codec import replace
from phantom_cri.lifecycle import durable
from phantom_cri.lifecycle.durable import DurableRecords
from phantom_cri.lifecycle.record_file import RecordFile
from phantom_cri.lifecycle.records import AnyRecord
from tests.unit.lifecycle.test_record_file import CONTAINER, POD


class Watched(RecordFile):
    """The real file; keeps what it was asked to write."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.writes: list[tuple[dict[str, AnyRecord | None], bool]] = []

    def write(self, changes: Mapping[str, AnyRecord | None], *, whole: bool) -> None:
        self.writes.append((dict(changes), whole))
        super().write(changes, whole=whole)


@pytest.fixture
def file(tmp_path: Path) -> Watched:
    return Watched(str(tmp_path / "records"))


async def settle() -> None:
    await asyncio.sleep(3 * durable.FLUSH_AFTER_S)


def test_it_begins_with_all_there_is(file: Watched) -> None:
    async def scenario() -> None:
        records = DurableRecords(file)
        records.note("c1", CONTAINER)  # nobody listens yet: it is among everything
        records.begin(lambda: [POD])
        await settle()
        assert file.writes == [({"p1": POD}, True)]
        await records.close()
        assert len(file.writes) == 1

    asyncio.run(scenario())
    assert file.read() == [POD]


def test_changes_gather_and_only_the_last_of_each_counts(file: Watched) -> None:
    async def scenario() -> None:
        records = DurableRecords(file)
        records.begin(lambda: [])
        await settle()
        for number in range(100):
            records.note("p1", replace(POD, created_at=number))
            records.note("c1", CONTAINER)
        await settle()
        assert file.writes[1:] == [({"p1": replace(POD, created_at=99), "c1": CONTAINER}, False)]
        records.note("c1", None)
        await settle()
        assert file.writes[2:] == [({"c1": None}, False)]
        await records.close()

    asyncio.run(scenario())
    assert file.read() == [replace(POD, created_at=99)]


def test_what_comes_and_goes_meanwhile_never_reaches_the_disk(file: Watched) -> None:
    async def scenario() -> None:
        records = DurableRecords(file)
        records.begin(lambda: [])
        await settle()
        for _ in range(100):
            records.note("p1", POD)
            records.note("p1", None)
        await settle()
        assert [changes for changes, _ in file.writes if changes] == []
        await records.close()

    asyncio.run(scenario())


def test_a_change_during_a_write_is_written_after_it(file: Watched) -> None:
    async def scenario() -> None:
        records = DurableRecords(file)
        records.begin(lambda: [])
        await settle()
        for number in range(200):
            records.note(f"p{number}", replace(POD, id=f"p{number}"))
            records.note(f"p{number - 1}", None)
            await asyncio.sleep(0.003)
        await records.close()

    asyncio.run(scenario())
    assert file.read() == [replace(POD, id="p199")]


def test_an_end_writes_what_is_pending(file: Watched) -> None:
    async def scenario() -> None:
        records = DurableRecords(file)
        records.begin(lambda: [])
        await settle()
        records.note("p1", POD)
        await records.close()

    asyncio.run(scenario())
    assert file.read() == [POD]


def test_a_failure_is_told_once_and_made_good(
    file: Watched, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "RETRY_AFTER_S", 0.05)
    folder = Path(file.path).parent
    folder.write_text("in the way")
    known: list[AnyRecord] = [POD]

    async def scenario() -> None:
        records = DurableRecords(file)
        records.begin(lambda: known)
        await settle()
        assert "File exists" in records.unavailable_reason or "Not a directory" in records.unavailable_reason
        known.append(CONTAINER)
        records.note("c1", CONTAINER)
        await settle()
        assert caplog.text.count("would not survive a reboot") == 1
        os.unlink(folder)
        await settle()
        assert records.unavailable_reason == ""
        assert "records of pods are written to disk again" in caplog.text
        assert file.writes[-1] == ({"p1": POD, "c1": CONTAINER}, True)
        await records.close()

    asyncio.run(scenario())
    assert {record.id for record in file.read()} == {"p1", "c1"}


def test_an_end_during_a_failure_does_not_wait_for_its_end(file: Watched) -> None:
    Path(file.path).parent.write_text("in the way")

    async def scenario() -> None:
        records = DurableRecords(file)
        records.begin(lambda: [POD])
        await settle()
        async with asyncio.timeout(1):
            await records.close()

    asyncio.run(scenario())


def test_memory_is_bounded_by_what_there_is(file: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing can be written, what has come and gone leaves nothing behind."""
    monkeypatch.setattr(durable, "RETRY_AFTER_S", 60.0)
    Path(file.path).parent.write_text("in the way")

    async def scenario() -> None:
        records = DurableRecords(file)
        records.begin(lambda: [])
        await settle()
        for number in range(1000):
            records.note(f"p{number}", POD)
            records.note(f"p{number}", None)
        assert records.pending == 0
        await records.close()

    asyncio.run(scenario())

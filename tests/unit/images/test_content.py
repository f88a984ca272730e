"""Blobs, trash, and work that is shared."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from phantom_cri.errors import DataLoss, InvalidArgument
from phantom_cri.images.content import ContentStore, digest_of
from phantom_cri.images.flights import Flights
from phantom_cri.images.threads import Threads
from phantom_cri.images.trash import Trash

CONTENT = b"content"
DIGEST = digest_of(CONTENT)


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    store = ContentStore(tmp_path)
    store.open()
    return store


def files(root: Path) -> set[str]:
    return {path.name for path in root.rglob("*") if path.is_file()}


def test_a_blob_shows_only_when_it_is_whole(store: ContentStore, tmp_path: Path) -> None:
    with store.ingest(DIGEST, 7) as ingest:
        ingest.write(b"con")
        assert not store.has(DIGEST)
    with store.ingest(DIGEST, 7) as ingest:
        ingest.take_up()
        assert ingest.offset == 3
        ingest.write(b"tent")
        ingest.commit()
    assert store.has(DIGEST)
    assert store.read(DIGEST) == CONTENT
    assert (store.used_bytes, store.count) == (7, 1)
    again = ContentStore(tmp_path)
    again.open()
    assert (again.used_bytes, again.digests()) == (7, (DIGEST,))
    store.delete(DIGEST)
    assert (store.used_bytes, files(tmp_path)) == (0, set())


@pytest.mark.parametrize(
    ("content", "size"), [(b"con", 7), (b"contens", 7), (b"content and more", 7), (b"", 7)]
)
def test_wrong_content_is_dropped(store: ContentStore, tmp_path: Path, content: bytes, size: int) -> None:
    with store.ingest(DIGEST, size) as ingest, pytest.raises(DataLoss, match=DIGEST):
        ingest.write(content)
        ingest.commit()
    assert files(tmp_path) == set()


def test_damage_on_disk_is_noticed(store: ContentStore) -> None:
    store.put(DIGEST, CONTENT)
    store.path(DIGEST).write_bytes(b"damaged")
    with pytest.raises(DataLoss):
        store.read(DIGEST)
    store.path(DIGEST).unlink()
    with pytest.raises(DataLoss):
        store.read(DIGEST)


@pytest.mark.parametrize("digest", ["sha256:../../../etc/passwd", "sha256:abc", "md5:" + "0" * 32, ""])
def test_digests_that_are_none_make_no_path(store: ContentStore, digest: str) -> None:
    with pytest.raises(DataLoss):
        store.path(digest)


def test_sweep_keeps_what_is_needed_or_young(store: ContentStore, tmp_path: Path) -> None:
    other = digest_of(b"other")
    store.put(DIGEST, CONTENT)
    store.put(other, b"other")
    with store.ingest(digest_of(b"part"), 4) as ingest:
        ingest.write(b"p")
    store.sweep({DIGEST}, older_than_s=3600)
    assert len(files(tmp_path)) == 3
    store.sweep({DIGEST}, older_than_s=0)
    assert files(tmp_path) == {DIGEST[7:]}


def test_trash_deletes_what_is_deep_and_what_is_not_a_folder(tmp_path: Path) -> None:
    trash = Trash(tmp_path / "trash")
    trash.open()
    victim = tmp_path / "victim"
    victim.mkdir()
    fd = os.open(victim, os.O_RDONLY)
    for _ in range(3000):  # deeper than PATH_MAX and than Python's stack
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.symlink("/etc", "link", dir_fd=fd)
    os.close(fd)
    (tmp_path / "file").write_text("x")
    (tmp_path / "kept").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    assert [trash.discard(str(tmp_path / name)) for name in ("victim", "file", "link", "missing")] == [
        True,
        True,
        True,
        False,
    ]
    trash.wait()
    assert {path.name for path in tmp_path.iterdir()} == {"trash", "kept"}
    assert list((tmp_path / "trash").iterdir()) == []
    trash.close()


def test_trash_of_an_earlier_run_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "trash" / "old" / "inner").mkdir(parents=True)
    trash = Trash(tmp_path / "trash")
    trash.open()
    trash.wait()
    assert list((tmp_path / "trash").iterdir()) == []
    trash.close()


async def test_flights_are_shared_and_end_with_the_last_passenger() -> None:
    flights: Flights[int] = Flights()
    runs: list[str] = []
    gate = asyncio.Event()

    async def work() -> int:
        runs.append("begun")
        try:
            await gate.wait()
        except asyncio.CancelledError:
            runs.append("cancelled")
            raise
        return 5

    first, second = (asyncio.ensure_future(flights.join("k", work)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    assert runs == ["begun"]
    gate.set()
    assert await second == 5
    gate.clear()
    third = asyncio.ensure_future(flights.join("k", work))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    third.cancel()
    await asyncio.wait([third])
    assert runs == ["begun", "begun", "cancelled"]


async def test_flights_hand_on_errors_and_forget_them() -> None:
    flights: Flights[int] = Flights()

    async def fail() -> int:
        raise InvalidArgument("no")

    results = await asyncio.gather(*(flights.join("k", fail) for _ in range(3)), return_exceptions=True)
    assert [str(each) for each in results] == ["no"] * 3

    async def work() -> int:
        return 1

    assert await flights.join("k", work) == 1


async def test_a_cancelled_caller_waits_for_its_thread() -> None:
    threads = Threads(1)
    reader, writer = os.pipe()
    done: list[bytes] = []
    task = asyncio.ensure_future(threads.run(lambda: done.append(os.read(reader, 1))))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    os.write(writer, b"x")
    await asyncio.wait([task])
    assert task.cancelled()
    assert done == [b"x"]
    threads.close()
    os.close(reader)
    os.close(writer)

"""Blobs, trash, and work that is shared."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from phantom_cri.errors import DataLoss, InvalidArgument, ResourceExhausted
from phantom_cri.images.content import ContentStore, digest_of
from phantom_cri.images.singleflight import SharedWork, SingleFlight
from phantom_cri.images.threads import Threads
from phantom_cri.images.trash import Trash

CONTENT = b"content"
DIGEST = digest_of(CONTENT)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ContentStore]:
    with opened(tmp_path) as store:
        yield store


@contextmanager
def opened(root: Path) -> Iterator[ContentStore]:
    trash = Trash(root / "trash")
    trash.open()
    store = ContentStore(root, trash)
    store.open()
    yield store
    trash.close()


def files(root: Path) -> set[str]:
    """Names of all but what is thrown away, and of a part without what it came from."""
    found = (path for path in root.rglob("*") if path.is_file() and path.parent.name != "trash")
    return {path.stem for path in found}


def test_a_blob_shows_only_when_it_is_whole(store: ContentStore, tmp_path: Path) -> None:
    with store.ingest(DIGEST, 7, "here") as ingest:
        ingest.write(b"con")
        assert not store.has(DIGEST)
    with store.ingest(DIGEST, 7, "here") as ingest:
        ingest.take_up()
        assert ingest.offset == 3
        ingest.write(b"tent")
        ingest.commit()
    assert store.has(DIGEST)
    assert store.read(DIGEST, 7) == CONTENT
    assert (store.used_bytes, store.count) == (7, 1)
    with opened(tmp_path) as again:
        assert (again.used_bytes, again.digests()) == (7, (DIGEST,))
    store.delete(DIGEST)
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
        store.read(DIGEST, 7)
    store.path(DIGEST).unlink()
    with pytest.raises(DataLoss):
        store.read(DIGEST, 7)


@pytest.mark.parametrize("digest", ["sha256:../../../etc/passwd", "sha256:abc", "md5:" + "0" * 32, ""])
def test_digests_that_are_none_make_no_path(store: ContentStore, digest: str) -> None:
    with pytest.raises(DataLoss):
        store.path(digest)


def test_what_nobody_came_back_for_is_stale(store: ContentStore, tmp_path: Path) -> None:
    other, part = digest_of(b"other"), digest_of(b"part")
    store.put(DIGEST, CONTENT)
    store.put(other, b"other")
    with store.ingest(part, 4, "here") as ingest:
        ingest.write(b"p")
        assert store.stale({DIGEST}, older_than_s=0) == [other]
        store.discard_parts({part})
        assert part[7:] in files(tmp_path), "it is being written"
    assert store.stale({DIGEST}, older_than_s=3600) == []
    assert len(files(tmp_path)) == 3
    assert store.stale({DIGEST}, older_than_s=0) == [other]
    assert files(tmp_path) == {DIGEST[7:], other[7:]}


def test_a_part_belongs_to_where_it_came_from(store: ContentStore, tmp_path: Path) -> None:
    with store.ingest(DIGEST, 7, "hostile") as poisoned:
        poisoned.write(b"poison")
        with store.ingest(DIGEST, 7, "hostile") as beside:
            beside.take_up()
            assert beside.offset == 0, "another writes to the part of this source"
            beside.write(CONTENT)
            beside.commit()
    for source in ("honest", ""):
        with store.ingest(DIGEST, 7, source) as ingest:
            ingest.take_up()
            assert ingest.offset == 0
    with store.ingest(DIGEST, 7, "hostile") as ingest:
        ingest.take_up()
        assert ingest.offset == 6
    store.discard_parts({DIGEST})
    assert os.listdir(tmp_path / "ingest") == []


def test_a_blob_of_any_size_can_be_named(store: ContentStore) -> None:
    store.put(DIGEST, CONTENT)
    with pytest.raises(ResourceExhausted, match="more than the 6 bytes"):
        store.read(DIGEST, 6)


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
    singleflight: SingleFlight[int] = SingleFlight()
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

    first, second = (asyncio.ensure_future(singleflight.join("k", work)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    assert runs == ["begun"]
    gate.set()
    assert await second == 5
    gate.clear()
    third = asyncio.ensure_future(singleflight.join("k", work))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    third.cancel()
    await asyncio.wait([third])
    assert runs == ["begun", "begun", "cancelled"]


async def test_flights_hand_on_errors_and_forget_them() -> None:
    singleflight: SingleFlight[int] = SingleFlight()

    async def fail() -> int:
        raise InvalidArgument("no")

    results = await asyncio.gather(*(singleflight.join("k", fail) for _ in range(3)), return_exceptions=True)
    assert [str(each) for each in results] == ["no"] * 3

    async def work() -> int:
        return 1

    assert await singleflight.join("k", work) == 1


class Worker:
    """Work for `SharedWork` that ends when it is told to."""

    def __init__(self) -> None:
        self.got_on: Callable[[], None] | None = None
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __call__(self, got_on: Callable[[], None]) -> None:
        self.got_on = got_on
        await self.end


async def side_by_side(shared: SharedWork, workers: list[Worker]) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(shared.do("k", each)) for each in workers]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def test_shared_work_is_done_by_the_first() -> None:
    workers = [Worker() for _ in range(3)]
    tasks = await side_by_side(SharedWork(), workers)
    assert [each.got_on is not None for each in workers] == [True, False, False]
    workers[0].end.set_result(None)
    await asyncio.gather(*tasks)
    assert workers[1].got_on is None


async def test_shared_work_that_fails_is_done_by_each() -> None:
    workers = [Worker() for _ in range(3)]
    first, *others = await side_by_side(SharedWork(), workers)
    workers[0].end.set_exception(InvalidArgument("mine alone"))
    with pytest.raises(InvalidArgument):
        await first
    await asyncio.sleep(0.01)
    assert all(each.got_on is not None for each in workers), "side by side, not one after the other"
    for each in workers[1:]:
        each.end.set_result(None)
    await asyncio.gather(*others)


async def test_shared_work_whose_first_leaves_is_taken_over() -> None:
    workers = [Worker() for _ in range(3)]
    first, *others = await side_by_side(SharedWork(), workers)
    first.cancel()
    await asyncio.wait([first])
    await asyncio.sleep(0.01)
    assert [each.got_on is not None for each in workers] == [True, True, False]
    workers[1].end.set_result(None)
    await asyncio.gather(*others)


async def test_shared_work_that_gets_nowhere_is_not_waited_for() -> None:
    workers = [Worker(), Worker()]
    first, second = await side_by_side(SharedWork(patience_s=0.1), workers)
    for _ in range(6):
        await asyncio.sleep(0.05)
        assert workers[0].got_on is not None
        workers[0].got_on()
    assert workers[1].got_on is None
    await asyncio.sleep(0.25)
    assert workers[1].got_on is not None
    workers[1].end.set_result(None)
    await second
    workers[0].end.set_result(None)
    await first


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

"""A pool against a spawn that the test controls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from phantom_cri.pools import Pool


class Fragment:
    def __init__(self) -> None:
        self.spawned_at = time.monotonic()
        self.is_alive = True
        self.well = True

    def alive(self) -> bool:
        return self.is_alive


class FakeFragments:
    """Counts spawns and ends; fails when told to."""

    def __init__(self) -> None:
        self.spawned: list[Fragment] = []
        self.ended: list[Fragment] = []
        self.fail = False

    async def spawn(self) -> Fragment:
        await asyncio.sleep(0)
        if self.fail:
            raise RuntimeError("no more pids")
        self.spawned.append(Fragment())
        return self.spawned[-1]

    async def end(self, fragment: Fragment) -> None:
        self.ended.append(fragment)

    async def check(self, fragment: Fragment) -> bool:
        return fragment.well


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  the pool has no event to wait for
            await asyncio.sleep(0.001)


@pytest.fixture
def fake() -> FakeFragments:
    return FakeFragments()


@pytest.fixture
async def pool(fake: FakeFragments) -> AsyncIterator[Pool[Fragment]]:
    pool = Pool(
        "default",
        4,
        max_age=3600,
        spawn=fake.spawn,
        end=fake.end,
        check=fake.check,
        check_every=0.01,
    )
    pool.start()
    await until(lambda: pool.warm() == 4)
    yield pool
    await pool.stop()


async def test_an_empty_pool_misses_at_once_and_counts_it(fake: FakeFragments) -> None:
    pool = Pool("none", 0, max_age=1, spawn=fake.spawn, end=fake.end, check=fake.check)
    pool.start()
    assert pool.claim() is None
    assert (pool.statistics().misses, pool.statistics().hits) == (1, 0)
    await pool.stop()
    assert fake.spawned == []


async def test_a_claim_gives_the_oldest_and_the_stock_comes_back(
    pool: Pool[Fragment], fake: FakeFragments
) -> None:
    oldest = fake.spawned[0]
    assert pool.claim() is oldest
    await until(lambda: pool.warm() == 4)
    assert pool.statistics().hits == 1
    assert pool.statistics().claimed == 1


async def test_a_dead_member_is_never_handed_out(pool: Pool[Fragment], fake: FakeFragments) -> None:
    fake.spawned[0].is_alive = False
    assert pool.claim() is fake.spawned[1]
    await until(lambda: fake.ended == [fake.spawned[0]])


async def test_a_death_that_is_told_is_made_good_at_once(pool: Pool[Fragment], fake: FakeFragments) -> None:
    fake.spawned[3].is_alive = False
    pool.drop_dead()
    assert pool.warm() == 3
    await until(lambda: pool.warm() == 4 and fake.ended == [fake.spawned[3]])


async def test_a_member_that_does_not_answer_is_replaced(pool: Pool[Fragment], fake: FakeFragments) -> None:
    sick = fake.spawned[2]
    sick.well = False
    await until(lambda: sick in fake.ended and pool.warm() == 4)
    assert pool.statistics().retired == 1


async def test_members_retire_by_age(fake: FakeFragments) -> None:
    pool = Pool("young", 2, max_age=0.0, spawn=fake.spawn, end=fake.end, check=fake.check, check_every=0.01)
    pool.start()
    await until(lambda: len(fake.ended) >= 2)
    await pool.stop()
    assert set(map(id, fake.spawned)) == set(map(id, fake.ended))


async def test_a_failing_birth_is_counted_told_and_tried_again(
    pool: Pool[Fragment], fake: FakeFragments
) -> None:
    fake.fail = True
    pool.claim()
    await until(lambda: pool.statistics().failed_spawns >= 2)
    assert pool.statistics().last_error == "no more pids"
    fake.fail = False
    await until(lambda: pool.warm() == 4)


async def test_a_burst_takes_what_there_is_then_misses(pool: Pool[Fragment]) -> None:
    assert [pool.claim() is not None for _ in range(6)] == [True] * 4 + [False] * 2


async def test_stop_ends_every_unclaimed_member(pool: Pool[Fragment], fake: FakeFragments) -> None:
    claimed = pool.claim()
    await pool.stop()
    assert claimed not in fake.ended
    assert {id(f) for f in fake.spawned} - {id(claimed)} == {id(f) for f in fake.ended}

"""A pool against a birth that the test controls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from phantom_cri.pools import Pool


class Fragment:
    def __init__(self) -> None:
        self.born_at = time.monotonic()
        self.is_alive = True
        self.well = True

    def alive(self) -> bool:
        return self.is_alive


class Nursery:
    """Counts births and ends; fails when told to."""

    def __init__(self) -> None:
        self.born: list[Fragment] = []
        self.ended: list[Fragment] = []
        self.fail = False

    async def birth(self) -> Fragment:
        await asyncio.sleep(0)
        if self.fail:
            raise RuntimeError("no more pids")
        self.born.append(Fragment())
        return self.born[-1]

    async def end(self, fragment: Fragment) -> None:
        self.ended.append(fragment)

    async def check(self, fragment: Fragment) -> bool:
        return fragment.well


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  the pool has no event to wait for
            await asyncio.sleep(0.001)


@pytest.fixture
def nursery() -> Nursery:
    return Nursery()


@pytest.fixture
async def pool(nursery: Nursery) -> AsyncIterator[Pool[Fragment]]:
    pool = Pool(
        "default",
        4,
        max_age=3600,
        birth=nursery.birth,
        end=nursery.end,
        check=nursery.check,
        check_every=0.01,
    )
    pool.start()
    await until(lambda: pool.warm() == 4)
    yield pool
    await pool.stop()


async def test_an_empty_pool_misses_at_once_and_counts_it(nursery: Nursery) -> None:
    pool = Pool("none", 0, max_age=1, birth=nursery.birth, end=nursery.end, check=nursery.check)
    pool.start()
    assert pool.claim() is None
    assert (pool.statistics().misses, pool.statistics().hits) == (1, 0)
    await pool.stop()
    assert nursery.born == []


async def test_a_claim_gives_the_oldest_and_the_stock_comes_back(
    pool: Pool[Fragment], nursery: Nursery
) -> None:
    oldest = nursery.born[0]
    assert pool.claim() is oldest
    await until(lambda: pool.warm() == 4)
    assert pool.statistics().hits == 1
    assert pool.statistics().claimed == 1


async def test_a_dead_member_is_never_handed_out(pool: Pool[Fragment], nursery: Nursery) -> None:
    nursery.born[0].is_alive = False
    assert pool.claim() is nursery.born[1]
    await until(lambda: nursery.ended == [nursery.born[0]])


async def test_a_death_that_is_told_is_made_good_at_once(pool: Pool[Fragment], nursery: Nursery) -> None:
    nursery.born[3].is_alive = False
    pool.drop_dead()
    assert pool.warm() == 3
    await until(lambda: pool.warm() == 4 and nursery.ended == [nursery.born[3]])


async def test_a_member_that_does_not_answer_is_replaced(pool: Pool[Fragment], nursery: Nursery) -> None:
    sick = nursery.born[2]
    sick.well = False
    await until(lambda: sick in nursery.ended and pool.warm() == 4)
    assert pool.statistics().retired == 1


async def test_members_retire_by_age(nursery: Nursery) -> None:
    pool = Pool(
        "young", 2, max_age=0.0, birth=nursery.birth, end=nursery.end, check=nursery.check, check_every=0.01
    )
    pool.start()
    await until(lambda: len(nursery.ended) >= 2)
    await pool.stop()
    assert set(map(id, nursery.born)) == set(map(id, nursery.ended))


async def test_a_failing_birth_is_counted_told_and_tried_again(
    pool: Pool[Fragment], nursery: Nursery
) -> None:
    nursery.fail = True
    pool.claim()
    await until(lambda: pool.statistics().failed_births >= 2)
    assert pool.statistics().last_error == "no more pids"
    nursery.fail = False
    await until(lambda: pool.warm() == 4)


async def test_a_burst_takes_what_there_is_then_misses(pool: Pool[Fragment]) -> None:
    assert [pool.claim() is not None for _ in range(6)] == [True] * 4 + [False] * 2


async def test_stop_ends_every_unclaimed_member(pool: Pool[Fragment], nursery: Nursery) -> None:
    claimed = pool.claim()
    await pool.stop()
    assert claimed not in nursery.ended
    assert {id(f) for f in nursery.born} - {id(claimed)} == {id(f) for f in nursery.ended}

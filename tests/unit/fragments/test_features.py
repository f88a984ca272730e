"""Fragments of other releases: which versions are spoken, what they lack, and what is kept from them."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from phantom_cri.errors import DataLoss, FailedPrecondition
from phantom_cri.fragments import FragmentClient, Lost, OtherVersion, features
from phantom_cri.fragments.features import WHOLLY, Kind, read_hello
from phantom_cri.plans import constants
from phantom_cri.plans.ops import Attach, Exec, MapIds, Mask, OpenTree
from phantom_cri.plans.plan import Block, Plan
from tests.unit.fragments.fake_fragment import EVERYTHING, Asked, FakeFragment

START, SIGNAL, GET, SHUTDOWN, SOCKET = 3, 4, 7, 9, 13
OK, EXITED = 64, 67


@pytest.fixture
async def fake() -> AsyncIterator[FakeFragment]:
    made = FakeFragment()
    yield made
    made.close()


@pytest.fixture
async def fragment(fake: FakeFragment) -> AsyncIterator[FragmentClient]:
    made = FragmentClient(fake.peer, lambda event: None)
    yield made
    made.close()


async def asked(fake: FakeFragment, request: Any) -> tuple[asyncio.Task[Any], Asked]:
    task = asyncio.ensure_future(request)
    await asyncio.sleep(0)
    return task, fake.receive()


async def greet(fake: FakeFragment, fragment: FragmentClient, **answer: Any) -> features.Hello:
    task, request = await asked(fake, fragment.hello())
    fake.answer_hello(request.serial, **answer)
    hello: features.Hello = await task
    return hello


def without(*lacking: tuple[int, int]) -> list[tuple[int, int, int]]:
    return [feature for feature in EVERYTHING if feature[:2] not in lacking]


@pytest.mark.parametrize(
    ("ours", "theirs", "spoken"),
    [
        ((1, 1), (1, 1), 1),
        ((1, 3), (1, 1), 1),
        ((1, 1), (1, 3), 1),
        ((2, 4), (1, 3), 3),
        ((2, 4), (3, 9), 4),
        ((2, 4), (4, 4), 4),
        ((2, 4), (1, 1), None),
        ((2, 4), (5, 6), None),
    ],
)
async def test_the_newest_version_that_both_speak(
    fake: FakeFragment,
    fragment: FragmentClient,
    monkeypatch: pytest.MonkeyPatch,
    ours: tuple[int, int],
    theirs: tuple[int, int],
    spoken: int | None,
) -> None:
    monkeypatch.setattr(constants, "VERSION_OLDEST", ours[0])
    monkeypatch.setattr(constants, "VERSION_NEWEST", ours[1])
    if spoken is None:
        with pytest.raises(
            OtherVersion, match=rf"{theirs[0]}.*, this daemon versions {ours[0]} to {ours[1]}"
        ):
            await greet(fake, fragment, oldest=theirs[0], newest=theirs[1])
    else:
        hello = await greet(fake, fragment, oldest=theirs[0], newest=theirs[1])
        assert (hello.version, hello.lacks) == (spoken, {})


async def test_a_fragment_of_another_version_can_only_be_ended(
    fake: FakeFragment, fragment: FragmentClient
) -> None:
    words = "the fragment speaks protocol versions 7 to 9, this daemon version 1"
    with pytest.raises(OtherVersion, match=words):
        await greet(fake, fragment, oldest=7, newest=9)
    refused: tuple[Awaitable[Any], ...] = (
        fragment.signal("c1", 9),
        fragment.get("c1"),
        fragment.start("c1", Plan(())),
    )
    for wanted in refused:
        with pytest.raises(FailedPrecondition, match=words):
            await wanted
    task, request = await asked(fake, fragment.shutdown())
    assert request.type == SHUTDOWN
    fake.send(OK, request.serial)
    await task


async def test_what_a_later_fragment_has_more_is_ignored(
    fake: FakeFragment, fragment: FragmentClient
) -> None:
    more = [(9, 9, 9), (Kind.OP, 999, 1), (Kind.REQUEST, 63, 0), (Kind.PLAN, 77, 1)]
    hello = await greet(fake, fragment, features=[*EVERYTHING, *more], more=b"later")
    assert hello.lacks == {}
    task, request = await asked(fake, fragment.signal("c1", 9))
    fake.send(OK, request.serial, more=b"12345678")
    await task


@pytest.mark.parametrize(
    "text", [b"", b"x" * 15, struct.pack("=4I", 99, 1, 1, 1), struct.pack("=4I", 16, 1, 1, 1) + b"odd"]
)
def test_answers_to_hello_that_are_none(text: bytes) -> None:
    with pytest.raises(DataLoss, match="answered hello"):
        read_hello(text)


def test_an_unknown_phase() -> None:
    with pytest.raises(DataLoss, match="unknown phase 55"):
        read_hello(struct.pack("=4I", 16, 1, 1, 55))


async def test_ops_that_an_older_fragment_lacks_are_kept_from_it(
    fake: FakeFragment, fragment: FragmentClient
) -> None:
    hello = await greet(fake, fragment, features=without((Kind.OP, MapIds.number)))
    assert hello.lacks == {(Kind.OP, MapIds.number): WHOLLY}
    assert fragment.knows(OpenTree) and not fragment.knows(MapIds)
    parts = (Block(OpenTree(0, "/data"), Mask("/proc/kcore")), MapIds(0), Exec("a", ("a",)))
    with pytest.raises(
        FailedPrecondition,
        match=r"start c1: op 2, map the ids of bind /data \(MapIds, number 14\): not known .* version 1",
    ):
        await fragment.start("c1", Plan(parts, kind=constants.KIND_CONTAINER))
    usual = Plan((parts[0], parts[2]), kind=constants.KIND_CONTAINER)
    task, request = await asked(fake, fragment.start("c1", usual))
    assert request.type == START
    task.cancel()


async def test_flags_that_an_older_fragment_lacks(fake: FakeFragment, fragment: FragmentClient) -> None:
    known = [
        (*feature[:2], constants.ATTACH_CREATE if feature[:2] == (Kind.OP, 21) else feature[2])
        for feature in EVERYTHING
    ]
    older: dict[tuple[int, int], int] = {(Kind.PLAN, 1): 15, (Kind.PLAN, 2): 31}
    known = [(*feature[:2], older.get(feature[:2], feature[2])) for feature in known]
    hello = await greet(fake, fragment, features=known)
    kept = constants.PLAN_KEEP | constants.PLAN_UNREAD
    assert hello.lacks == {
        (Kind.OP, 21): constants.ATTACH_RECURSIVE,
        (Kind.PLAN, 1): constants.PLAN_HOLD | kept,
        (Kind.PLAN, 2): kept,
    }
    assert fragment.knows(Attach, constants.ATTACH_CREATE)
    assert not fragment.knows(Attach, constants.ATTACH_CREATE | constants.ATTACH_RECURSIVE)
    plan = Plan(
        (Attach(0, "/x", flags=constants.ATTACH_RECURSIVE), Exec("a", ("a",))), kind=constants.KIND_CONTAINER
    )
    with pytest.raises(FailedPrecondition, match=r"op 0, slot 0 on /x \(Attach, number 21\)"):
        await fragment.start("c1", plan)
    held = Plan((Exec("a", ("a",)),), kind=constants.KIND_CONTAINER, flags=constants.PLAN_HOLD)
    with pytest.raises(FailedPrecondition, match="a plan of kind 1 with flags 0x10"):
        await fragment.prepare("c1", held)
    kept_exec = Plan((Exec("a", ("a",)),), kind=constants.KIND_EXEC, flags=constants.PLAN_KEEP)
    with pytest.raises(FailedPrecondition, match="start c1/e: a plan of kind 2 with flags 0x20: not known"):
        await fragment.start("c1/e", kept_exec)


async def test_requests_that_an_older_fragment_lacks(fake: FakeFragment, fragment: FragmentClient) -> None:
    known = [feature for feature in without((Kind.REQUEST, SOCKET)) if feature[:2] != (Kind.REQUEST, SIGNAL)]
    await greet(fake, fragment, features=[*known, (Kind.REQUEST, SIGNAL, 0)])
    with pytest.raises(FailedPrecondition, match="make a socket: this request: not known"):
        await fragment.tcp_socket(2)
    with pytest.raises(FailedPrecondition, match="signal c1: flags 0x1: not known"):
        await fragment.signal("c1", 9, all_processes=True)
    task, request = await asked(fake, fragment.signal("c1", 9))
    fake.send(OK, request.serial)
    await task


async def test_events_of_a_later_fragment_are_ignored() -> None:
    fake, events = FakeFragment(), list[Any]()
    fragment = FragmentClient(fake.peer, events.append)
    fake.send(99, process_id="c1")
    fake.send(EXITED, process_id="c1", flags=1, more=bytes(16))
    async with asyncio.timeout(5):
        while not events:  # noqa: ASYNC110 - a condition of the loop itself
            await asyncio.sleep(0)
    assert events[0].process_id == "c1" and Lost() not in events
    fragment.close()
    fake.close()

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from phantom_cri.errors import (
    AlreadyExists,
    DataLoss,
    Internal,
    InvalidArgument,
    NotFound,
)
from phantom_cri.fragments import (
    ExecError,
    Exit,
    Exited,
    FragmentClient,
    FragmentLost,
    FragmentStatistics,
    LaunchError,
    Lost,
    Phase,
    Resync,
    State,
    summed,
)
from phantom_cri.plans import Donations
from phantom_cri.plans.ops import Exec, Hostname, Mask
from phantom_cri.plans.plan import Plan
from tests.unit.fragments.fake_fragment import Asked, FakeFragment
from tests.unit.plans.decoder import decode

HELLO, ADOPT, START, SIGNAL, REOPEN, LIST, GET, FORGET, SHUTDOWN = range(1, 10)
OK, ERROR, ENTRY, EXITED, RESYNC = range(64, 69)
PLAN = Plan((Hostname("x"), Mask("/secret"), Exec("tool", ("tool",))), donated=("log",))


class Pair:
    def __init__(self) -> None:
        self.fake = FakeFragment()
        self.events: list[Any] = []
        self.fragment = FragmentClient(self.fake.peer, self.events.append)

    async def ask(self, request: Awaitable[Any]) -> tuple[asyncio.Task[Any], Asked]:
        async def ask() -> Any:
            return await request

        task = asyncio.create_task(ask())
        await asyncio.sleep(0)
        return task, self.fake.receive()

    async def heard(self) -> list[Any]:
        async with asyncio.timeout(5):
            while not self.events:  # noqa: ASYNC110 - a condition of the loop itself
                await asyncio.sleep(0)
        return self.events


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    made = Pair()
    gc.collect()  # what earlier tests have left open would close itself meanwhile
    before = len(os.listdir("/proc/self/fd"))
    yield made
    made.fragment.close()
    made.fake.close()
    assert len(os.listdir("/proc/self/fd")) == before - 2, "fds leaked"


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (
            {"error": errno.ENOENT, "value": 1, "text": b"no such process"},
            NotFound,
            "start c1: the fragment has no",
        ),
        ({"error": errno.EEXIST, "value": 1}, AlreadyExists, "start c1: the fragment already has it"),
        (
            {"error": errno.EINVAL, "value": 2, "text": b"magic"},
            LaunchError,
            "start c1: decode: EINVAL .*: magic",
        ),
        ({"error": errno.EAGAIN, "value": 3}, LaunchError, "start c1: clone: EAGAIN"),
        (
            {"error": errno.EACCES, "value": 4, "value2": 1},
            LaunchError,
            "^op 1, mask /secret: EACCES .Permission denied.$",
        ),
        (
            {"error": errno.EIO, "value": 4, "value2": 1, "text": b"why"},
            LaunchError,
            "^op 1, mask /secret: EIO .*: why$",
        ),
        ({"error": errno.EIO, "value": 4, "value2": 9}, LaunchError, "start c1: op: EIO"),
        ({"error": errno.EIO, "value": 77, "value2": -1}, LaunchError, "start c1: unknown: EIO"),
        (
            {"error": errno.ENOENT, "value": 4, "value2": 2},
            ExecError,
            r'^exec: "tool": executable file not found in \$PATH$',
        ),
        ({"error": errno.EACCES, "value": 4, "value2": 2}, ExecError, '^exec: "tool": permission denied$'),
        ({"error": errno.ENOEXEC, "value": 4, "value2": 2}, ExecError, '^exec: "tool": exec format error$'),
        ({"error": errno.EPERM, "value": 4, "value2": 2}, ExecError, '^exec: "tool": EPERM '),
    ],
)
async def test_refusals_become_errors(pair: Pair, answer: dict[str, Any], kind: type, words: str) -> None:
    with Donations() as donations:
        donations.give("log", os.open("/dev/null", os.O_WRONLY))
        task, asked = await pair.ask(pair.fragment.start("c1", PLAN, donations))
        pair.fake.send(ERROR, asked.serial, **answer)
        with pytest.raises(kind, match=words):
            await task


async def test_a_plan_without_its_fds_is_not_sent(pair: Pair) -> None:
    with Donations() as donations, pytest.raises(Internal, match="needs fd 'log'"):
        await pair.fragment.start("c1", PLAN, donations)


@pytest.mark.parametrize("process_id", ["x" * 161, "a\0b"])
async def test_impossible_ids(pair: Pair, process_id: str) -> None:
    with pytest.raises(InvalidArgument, match="process id"):
        await pair.fragment.get(process_id)


async def test_a_fragment_that_dies(pair: Pair) -> None:
    first, _ = await pair.ask(pair.fragment.hello())
    second, _ = await pair.ask(pair.fragment.forget("c1"))
    pair.fake.close()
    for task in (first, second):
        with pytest.raises(FragmentLost, match="the fragment is gone"):
            await task
    assert pair.events == [Lost()]
    with pytest.raises(FragmentLost, match="get c1: the fragment is gone"):
        await pair.fragment.get("c1")
    pair.fragment.close()
    assert pair.events == [Lost()]


async def test_closing_is_quiet(pair: Pair) -> None:
    task, _ = await pair.ask(pair.fragment.hello())
    pair.fragment.close()
    with pytest.raises(FragmentLost):
        await task
    assert pair.events == []


@pytest.mark.parametrize("packet", [b"short", b"\0" * 248 + b"more than it says", b"\xff" * 248])
async def test_nonsense_ends_the_connection(pair: Pair, packet: bytes) -> None:
    task, _ = await pair.ask(pair.fragment.hello())
    pair.fake.socket.send(packet)
    with pytest.raises(FragmentLost, match="hello: a fragment sent"):
        await task
    assert pair.events == [Lost()]


async def test_answers_that_are_none(pair: Pair) -> None:
    task, asked = await pair.ask(pair.fragment.get("c1"))
    pair.fake.send(OK, asked.serial)
    with pytest.raises(DataLoss, match="get c1: the fragment sent no entry"):
        await task
    task, asked = await pair.ask(pair.fragment.start("c1", Plan(())))
    pair.fake.send(OK, asked.serial)
    with pytest.raises(DataLoss, match="start c1: the fragment sent no pidfd"):
        await task
    task, asked = await pair.ask(pair.fragment.get("c1"))
    pair.fake.send(ENTRY, asked.serial, process_id="c1", value=55)
    with pytest.raises(FragmentLost, match="unknown state 55"):
        await task


async def test_answers_to_nobody_are_dropped_with_their_fds(pair: Pair) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    task, asked = await pair.ask(pair.fragment.get("c1"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pair.fake.send(ENTRY, asked.serial, process_id="c1", value=2, fds=(null, null))
    pair.fake.send(OK, 99, fds=(null, null, null))
    pair.fake.send(RESYNC)
    os.close(null)
    assert await pair.heard() == [Resync()]


async def test_a_cancellation_behind_the_answer_leaks_nothing(pair: Pair) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    task, asked = await pair.ask(pair.fragment.start("c1", Plan(())))
    pair.fake.send(OK, asked.serial, fds=(null,))
    os.close(null)
    request = pair.fragment._waiting[asked.serial]
    while not request.done.done():
        pair.fragment._connection._readable()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# ---- what goes right


async def test_hello_and_events(pair: Pair) -> None:
    task, asked = await pair.ask(pair.fragment.hello())
    assert (asked.type, asked.value) == (HELLO, 1)
    pair.fake.answer_hello(asked.serial, phase=2)
    assert (await task).phase == Phase.CLAIMED
    pair.fake.send(EXITED, process_id="c1", flags=1, exit=(1, 2, 137, 9, 1, 3))
    expected = Exit(started_at=1, finished_at=2, code=137, signal=9, oom=True, dropped_lines=3)
    assert await pair.heard() == [Exited("c1", 1, expected)]


async def test_answers_in_any_order(pair: Pair) -> None:
    first, asked_first = await pair.ask(pair.fragment.signal("c1", 15))
    second, asked_second = await pair.ask(pair.fragment.signal("c2", 9, all_processes=True))
    assert (asked_first.type, asked_first.value, asked_first.flags, asked_first.process_id) == (
        SIGNAL,
        15,
        0,
        "c1",
    )
    assert (asked_second.value, asked_second.flags) == (9, 1)
    pair.fake.send(OK, asked_second.serial)
    await second
    assert not first.done()
    pair.fake.send(OK, asked_first.serial)
    await first


async def test_a_start(pair: Pair) -> None:
    pidfd = os.pidfd_open(os.getpid())
    with Donations() as donations:
        donations.give("log", os.open("/dev/null", os.O_WRONLY))
        task, asked = await pair.ask(pair.fragment.start("c1", PLAN, donations))
    assert (asked.type, asked.process_id, asked.fds) == (START, "c1", 2)
    assert [name for name, _ in decode(asked.plan).ops] == ["HOSTNAME", "MASK", "EXEC"]
    pair.fake.send(OK, asked.serial, fds=(pidfd,))
    started = await task
    assert started.process is not None and started.process.pid == os.getpid()
    assert started.console == -1
    os.close(started.pidfd)
    os.close(pidfd)


async def test_claiming(pair: Pair) -> None:
    task, asked = await pair.ask(pair.fragment.adopt(Plan((Hostname("x"),)), claim=True))
    assert (asked.type, asked.flags, asked.fds) == (ADOPT, 1, 1)
    pair.fake.send(OK, asked.serial)
    await task


async def test_lists_and_entries(pair: Pair) -> None:
    task, asked = await pair.ask(pair.fragment.list_processes())
    pair.fake.send(ENTRY, asked.serial, process_id="c1", flags=1, value=2, value2=7)
    pair.fake.send(ENTRY, asked.serial, process_id="c2", flags=2, value=3, exit=(1, 2, 3, 0, 0, 0))
    pair.fake.send(OK, asked.serial, value=2)
    one, two = await task
    assert (one.process_id, one.kind, one.state, one.pid, one.pidfd) == ("c1", 1, State.RUNNING, 7, -1)
    assert (two.state, two.exit) == (State.EXITED, Exit(started_at=1, finished_at=2, code=3))
    null = os.open("/dev/null", os.O_RDONLY)
    task, asked = await pair.ask(pair.fragment.get("c1"))
    pair.fake.send(ENTRY, asked.serial, process_id="c1", value=2, fds=(null, null))
    entry = await task
    for fd in (null, entry.pidfd, entry.console):
        os.close(fd)


async def test_the_rest(pair: Pair) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for request, type in (
        (pair.fragment.forget("c1"), FORGET),
        (pair.fragment.shutdown(), SHUTDOWN),
        (pair.fragment.reopen_log("c1", null), REOPEN),
        (pair.fragment.close_stdin("c1"), 10),
    ):
        task, asked = await pair.ask(request)
        assert asked.type == type
        pair.fake.send(OK, asked.serial)
        await task
    os.close(null)


async def test_a_fragment_that_does_not_read_gets_it_later(pair: Pair) -> None:
    tasks = [asyncio.create_task(pair.fragment.forget(f"c{index}")) for index in range(2000)]
    await asyncio.sleep(0)
    for index in range(2000):
        asked = await asyncio.to_thread(pair.fake.receive)
        assert asked.process_id == f"c{index}"
        pair.fake.send(OK, asked.serial)
    await asyncio.gather(*tasks)


async def test_statistics_count_what_is_open(pair: Pair) -> None:
    assert pair.fragment.statistics() == FragmentStatistics(1, 0, 0, 0, 0, 0)
    task, asked = await pair.ask(pair.fragment.forget("c1"))
    waiting = pair.fragment.statistics()
    assert waiting == FragmentStatistics(1, 1, 0, 0, 0, 0)
    assert summed((waiting, waiting)) == FragmentStatistics(2, 2, 0, 0, 0, 0)
    assert summed(()) == FragmentStatistics(0, 0, 0, 0, 0, 0)
    pair.fake.send(OK, asked.serial)
    await task
    assert pair.fragment.statistics().requests == 0
    pair.fragment.close()
    assert pair.fragment.statistics().connections == 0


async def test_unsent_fds_are_closed_with_the_connection(pair: Pair) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    tasks = [asyncio.create_task(pair.fragment.reopen_log("c1", null)) for _ in range(2000)]
    await asyncio.sleep(0)
    os.close(null)
    assert pair.fragment.statistics().unsent
    pair.fragment.close()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, FragmentLost)
    while pair.fake.socket.recv(4096):  # what was sent before; then the end
        pass


async def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(FragmentLost, match=r"none: No such file"):
        FragmentClient.connect(str(tmp_path / "none"), print)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(tmp_path / "dead"))
    with pytest.raises(FragmentLost, match=r"dead: Connection refused"):
        FragmentClient.connect(str(tmp_path / "dead"), print)

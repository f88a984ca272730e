"""Every acquire on the way of every verb fails once: it is told why, nothing is left, and it works again."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import pytest

from phantom_cri.errors import PhantomError
from phantom_cri.fragments.client import FragmentClient
from tests.e2e.faults.bed import Bed, fragments
from tests.e2e.faults.catalogue import VERBS
from tests.e2e.faults.injection import Cancelled, Faults, Point, armed, os_error, usual_failure
from tests.e2e.faults.scenarios import Scenario

pytestmark = pytest.mark.root

LOST = ("UNAVAILABLE", "FAILED_PRECONDITION", "INTERNAL", "NOT_FOUND")
"""What a caller may be told whose pod's fragment was killed under its request."""

HANGS_AFTER = 20.0
"""Seconds for one request with a fault in it."""

EXHAUSTED = (errno.ENOSPC, errno.EMFILE, errno.ENOMEM, errno.EAGAIN)

every_verb = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
each_kind = pytest.mark.parametrize(
    "verb",
    [pytest.param(verb, marks=[pytest.mark.long] if verb.variant_of else []) for verb in VERBS],
    ids=lambda verb: verb.__name__,
)
"""As `every_verb`, the variants in the long run only."""


class Outcome:
    """What came of one request: a result or an error."""

    def __init__(self) -> None:
        self.result: Any = None
        self.error: BaseException | None = None

    @classmethod
    async def of(cls, request: Awaitable[Any]) -> Outcome:
        made = cls()
        try:
            async with asyncio.timeout(HANGS_AFTER):
                made.result = await asyncio.ensure_future(request)
        except TimeoutError:
            made.error = AssertionError(f"it hangs for more than {HANGS_AFTER} s")
        except BaseException as error:
            made.error = error
        return made


async def one_fault(
    scenario: Scenario, request: Callable[[Any], Awaitable[Any]], judge: Callable[[BaseException], str]
) -> list[str]:
    """Prepare, send the request with its fault, look at everything, send it again; answers what is wrong."""
    bed = scenario.bed
    base = bed.traces()
    thing = await scenario.prepare()
    listening = bed.runtime.events.listen()
    before = bed.traces()
    outcome = await Outcome.of(request(thing))
    wrong = []
    result = outcome.result
    if outcome.error is not None:
        wrong.append(judge(outcome.error))
        if not (isinstance(outcome.error, asyncio.CancelledError) and await scenario.was_done(thing)):
            wrong.append(said("left", await bed.left_since(before)))
        try:
            async with asyncio.timeout(HANGS_AFTER):
                result = await scenario.again(thing)
        except Exception as error:  # whatever it is, it is the finding
            await bed.remove_pods()
            return [*filter(None, wrong), f"again: {error!r}"]
    try:
        async with asyncio.timeout(HANGS_AFTER):
            await scenario.finish(thing, result)
    except Exception as error:
        wrong.append(f"at last: {error!r}")
    listening.close()
    wrong.append(said("changed", await bed.changed_since(base)))
    found = [*filter(None, wrong)]
    if found:
        await bed.remove_pods()  # they are no finding of the next one
    return found


def said(what: str, changes: str) -> str:
    return f"{what}: {changes}" if changes else ""


def run(bed: Bed, work: Awaitable[Any]) -> Any:
    async def whole() -> Any:
        return await work

    return bed.runner.run(whole())


def count(bed: Bed, scenario: Scenario) -> list[Point]:
    """The calls of one run without a fault, the second: caches are filled by the first."""
    faults = Faults()

    async def counted(thing: Any) -> Any:
        with armed(faults):
            return await scenario.act(thing)

    run(bed, one_fault(scenario, counted, repr))  # now caches are filled
    faults = Faults()
    assert run(bed, one_fault(scenario, counted, repr)) == []
    assert len(faults.points) > 3, faults.points
    return faults.points


def check_all(
    bed: Bed,
    scenario: Scenario,
    failure: Callable[[str], BaseException] | None = None,
    but: Collection[Point] = (),
) -> None:
    """`but`: calls that do not fail."""
    points = [point for point in count(bed, scenario) if point not in but]
    findings, missed = [], []
    for point in points:
        faults = Faults(point, failure)

        async def failing(thing: Any, faults: Faults = faults) -> Any:
            with armed(faults):
                return await scenario.act(thing)

        def judge(error: BaseException, faults: Faults = faults) -> str:
            return misjudged(error, faults.fired)

        wrong = run(bed, one_fault(scenario, failing, judge))
        if faults.fired is None:
            missed.append(point)
        findings += [f"{point[0]} #{point[1]} with {faults.fired!r}: {what}" for what in wrong]
    assert not findings, f"{len(findings)} findings:\n" + "\n".join(findings)
    assert len(missed) <= len(points) // 10, f"not reached again: {missed}"


def misjudged(error: BaseException, injected: BaseException | None) -> str:
    """What is wrong with the error that the caller gets."""
    if not isinstance(error, PhantomError):
        return f"the caller gets {error!r}"
    if isinstance(injected, OSError):
        name = errno.errorcode[injected.errno or 0]
        if name not in str(error) and str(injected.strerror) not in str(error):
            return f"the error does not say why: {error!r}"
        if injected.errno in EXHAUSTED and error.code != "RESOURCE_EXHAUSTED":
            return f"{name} is told as {error.code}: {error!r}"
    return ""


@pytest.mark.parametrize(
    "verb",
    [pytest.param(verb, marks=[pytest.mark.long] if verb.slow else []) for verb in VERBS],
    ids=lambda verb: verb.__name__,
)
def test_each_call_fails(bed: Bed, verb: type[Scenario]) -> None:
    """With what it most likely fails with: no space, no fds, no permission, or an error of the room's own."""
    common = count(bed, verb.variant_of(bed)) if verb.variant_of else ()
    check_all(bed, verb(bed), but=frozenset(common))


@pytest.mark.long
@every_verb
@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EMFILE, errno.EACCES, errno.EIO], ids=errno.errorcode.get
)
def test_each_call_fails_with(bed: Bed, verb: type[Scenario], number: int) -> None:
    def failure(name: str) -> BaseException:
        kind = type(usual_failure(name))
        return os_error(number) if issubclass(kind, OSError) else usual_failure(name)

    check_all(bed, verb(bed), failure)


@every_verb
@pytest.mark.parametrize("late", [False, True], ids=["while it waits", "as the answer comes"])
def test_the_caller_leaves_at_each_await(bed: Bed, verb: type[Scenario], late: bool) -> None:
    """A client that is gone, or whose time is up, cancels the verb wherever that is."""
    scenario = verb(bed)

    async def act(thing: Any) -> Any:
        waited = Cancelled(scenario.act(thing), 0, late=late)
        result = await waited
        act.awaits = waited.awaits  # type: ignore[attr-defined]
        return result

    assert run(bed, one_fault(scenario, act, repr)) == []
    findings = []
    for number in range(1, act.awaits + 1):  # type: ignore[attr-defined]

        async def leaving(thing: Any, number: int = number) -> Any:
            return await Cancelled(scenario.act(thing), number, late=late)

        wrong = run(bed, one_fault(scenario, leaving, left_or_failed))
        findings += [f"await {number}: {what}" for what in wrong]
    assert not findings, f"{len(findings)} findings:\n" + "\n".join(findings)


def left_or_failed(error: BaseException) -> str:
    return "" if isinstance(error, asyncio.CancelledError) else f"not cancelled, but {error!r}"


IN_A_FRAGMENT = tuple(
    verb
    for verb in VERBS
    if verb.__name__ in ("ColdPod", "WarmPod", "StartPrepared", "StartUnprepared", "ExecSync", "ReopenLog")
)
in_a_fragment = pytest.mark.parametrize("verb", IN_A_FRAGMENT, ids=lambda verb: verb.__name__)


@in_a_fragment
def test_each_answer_of_the_fragment_is_lost(
    bed: Bed, verb: type[Scenario], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets the request and carries it out, but the connection breaks before its answer is read."""

    def lose(fragment: FragmentClient) -> None:
        asyncio.get_running_loop().call_soon(fragment._lost)

    at_each_request(bed, verb(bed), monkeypatch, lose, work=one_fault)


@in_a_fragment
def test_the_fragment_is_killed_at_each_request(
    bed: Bed, verb: type[Scenario], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it can read it: whether it has answered would be a matter of luck otherwise."""

    def kill(fragment: FragmentClient) -> None:
        for pid in fragments():
            os.kill(pid, signal.SIGKILL)

    at_each_request(bed, verb(bed), monkeypatch, kill, work=one_loss)


def at_each_request(
    bed: Bed,
    scenario: Scenario,
    monkeypatch: pytest.MonkeyPatch,
    happen: Callable[[FragmentClient], None],
    work: Callable[..., Awaitable[list[str]]],
) -> None:
    """Let something happen to the fragment as the Nth request goes out to it, for each N."""
    send, sent, target = FragmentClient._send, 0, 0

    def sending(fragment: FragmentClient, *args: Any, **kwargs: Any) -> Any:
        nonlocal sent
        sent += 1
        if sent == target:
            happen(fragment)
        return send(fragment, *args, **kwargs)

    async def act(thing: Any) -> Any:
        nonlocal sent
        sent = 0
        try:
            return await scenario.act(thing)
        finally:
            counts.append(sent)
            sent = -1000

    counts: list[int] = []
    monkeypatch.setattr(FragmentClient, "_send", sending)
    assert run(bed, one_fault(scenario, act, repr)) == []
    findings = []
    for target in range(1, counts[0] + 1):
        wrong = run(bed, work(scenario, act, misjudged_loss))
        findings += [f"request {target}: {what}" for what in wrong]
    assert not findings, f"{len(findings)} findings:\n" + "\n".join(findings)


async def one_loss(
    scenario: Scenario, request: Callable[[Any], Awaitable[Any]], judge: Callable[[BaseException], str]
) -> list[str]:
    """As `one_fault`, where the pod is lost: it can be removed, and another one is as good as ever.

    A request that succeeds all the same has found another fragment.
    """
    bed = scenario.bed
    base = bed.traces()
    thing = await scenario.prepare()
    outcome = await Outcome.of(request(thing))
    wrong = [judge(outcome.error)] if outcome.error is not None else []
    if outcome.error is None:
        await scenario.finish(thing, outcome.result)
    await bed.remove_pods()
    await bed.empty_pool()
    wrong.append(said("changed", await bed.changed_since(base)))
    return [*filter(None, wrong), *await one_fault(scenario, scenario.act, repr)]


def misjudged_loss(error: BaseException) -> str:
    told = isinstance(error, PhantomError) and error.code in LOST
    return "" if told else f"the caller gets {error!r}"


@in_a_fragment
def test_a_full_socket_only_delays(bed: Bed, verb: type[Scenario]) -> None:
    """A fragment that is slow to read makes the daemon wait, at each message and with its fds."""
    scenario = verb(bed)
    findings = []
    for point in (each for each in count(bed, scenario) if each[0].startswith("socket.sendmsg")):
        faults = Faults(point, lambda _: BlockingIOError(errno.EAGAIN, "injected"))

        async def act(thing: Any, faults: Faults = faults) -> Any:
            with armed(faults):
                return await scenario.act(thing)

        wrong = run(bed, one_fault(scenario, act, lambda error: f"it fails: {error!r}"))
        findings += [f"{point}: {what}" for what in wrong]
        assert faults.fired, point
    assert not findings, findings


@each_kind
def test_short_writes_lose_nothing(bed: Bed, verb: type[Scenario], monkeypatch: pytest.MonkeyPatch) -> None:
    """write(2) may take less than it is given, as it does on a disk that is nearly full."""
    write, shortened = os.write, 0

    def half(fd: int, content: bytes) -> int:
        nonlocal shortened
        if len(content) > 1 and os.readlink(f"/proc/self/fd/{fd}").startswith(str(bed.daemon.folder)):
            shortened += 1
            return write(fd, content[: len(content) // 2])
        return write(fd, content)

    monkeypatch.setattr(os, "write", half)
    scenario = verb(bed)
    assert run(bed, one_fault(scenario, scenario.act, repr)) == []
    assert shortened


@each_kind
def test_it_works_ten_times(bed: Bed, verb: type[Scenario]) -> None:
    """What tells leaks from what is made once: nothing grows from one time to the next."""
    scenario = verb(bed)
    for _ in range(10):
        assert run(bed, one_fault(scenario, scenario.act, repr)) == []

"""Every acquire on the way of every verb fails once: the caller is told why, nothing is left, and it works again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from phantom_cri.errors import PhantomError
from phantom_cri.launch.fragment import Fragment
from tests.e2e.faults.bed import Bed, children
from tests.e2e.faults.injection import Cancelled, Faults, Point, armed, os_error
from tests.e2e.faults.scenarios import VERBS, LongExec, Scenario

pytestmark = pytest.mark.root

HANGS_AFTER = 4.0
"""Seconds for one request with a fault in it."""

EXHAUSTED = (errno.ENOSPC, errno.EMFILE, errno.ENOMEM, errno.EAGAIN)

every_verb = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)


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
        except BaseException as error:  # noqa: BLE001 - also CancelledError: each is judged by the caller
            made.error = error
        return made


async def one_fault(
    scenario: Scenario, request: Callable[[Any], Awaitable[Any]], judge: Callable[[BaseException], str]
) -> list[str]:
    """Prepare, send the request with its fault, look at everything, send it again; answers what is wrong."""
    bed = scenario.bed
    base = bed.traces()
    thing = await scenario.prepare()
    before = bed.traces()
    outcome = await Outcome.of(request(thing))
    wrong = []
    result = outcome.result
    if outcome.error is not None:
        wrong.append(judge(outcome.error))
        wrong.append(said("left", await bed.left_since(before)))
        try:
            async with asyncio.timeout(HANGS_AFTER):
                result = await scenario.again(thing)
        except Exception as error:  # whatever it is, it is the finding
            return [*filter(None, wrong), f"again: {error!r}"]
    try:
        async with asyncio.timeout(HANGS_AFTER):
            await scenario.finish(thing, result)
    except Exception as error:
        wrong.append(f"at last: {error!r}")
    wrong.append(said("changed", await bed.changed_since(base)))
    return [*filter(None, wrong)]


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
    return faults.points


def check_all(bed: Bed, scenario: Scenario, failure: Callable[[str], BaseException] | None = None) -> None:
    points = count(bed, scenario)
    assert len(points) > 3, points
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


@every_verb
def test_each_call_fails(bed: Bed, verb: type[Scenario]) -> None:
    """With what it most likely fails with: no space, no fds, no permission, or an error of the room's own."""
    check_all(bed, verb(bed))

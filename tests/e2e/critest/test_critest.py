"""Kubernetes' conformance suite for container runtimes, whole, over our daemon (docs/conformance.md)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.critest.expected import FAILURES, SPECS, surprises
from tests.e2e.critest.runs import BUILT_IN, CONTAINERD, OURS, Result, Run, perform

pytestmark = pytest.mark.root
Performer = Callable[[Run], Result]


@pytest.fixture(scope="session")
def performed(tmp_path_factory: pytest.TempPathFactory) -> Performer:
    """Answers what a run of critest came to; each is done once in a session."""
    results: dict[str, Result] = {}

    def once(run: Run) -> Result:
        if run.name not in results:
            results[run.name] = perform(run, tmp_path_factory.mktemp("critest"))
        return results[run.name]

    return once


@pytest.mark.parametrize("run", OURS, ids=str)
def test_specs_pass(run: Run, performed: Performer) -> None:
    report = performed(run).report
    if not run.focus:
        assert len(report.specs) >= SPECS, "specs got lost"
    found = surprises(report, run.lacks)
    if found:
        title = f"critest, {run}: {len(found)} of {len(report.specs)} specs"
        pytest.fail("\n".join([title, *found]), pytrace=False)


@pytest.mark.parametrize("run", OURS, ids=str)
def test_nothing_is_left_behind(run: Run, performed: Performer) -> None:
    assert not performed(run).left_behind


@pytest.mark.parametrize("run", OURS, ids=str)
def test_the_daemon_met_nothing_unexpected(run: Run, performed: Performer) -> None:
    assert "Traceback" not in performed(run).log


@pytest.mark.long
def test_what_containerd_passes_passes(performed: Performer) -> None:
    """containerd, on the same machine with the same images, tells that the suite itself is sound here."""
    reference, ours = performed(CONTAINERD).report, performed(BUILT_IN).report
    assert {spec.name for spec in reference.with_outcome("failed")} == set(FAILURES)
    passed = {spec.name for spec in ours.with_outcome("passed")}
    assert {spec.name for spec in reference.with_outcome("passed")} - passed == set()

"""Each odd image runs here as the corpus says; tests marked long prove what it records of containerd."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from harness.containerd import Choices, Containerd
from harness.daemon import Daemon
from harness.image import PAUSE_SOURCE, program_layer
from harness.registry import serve_from
from tests.e2e.images.spec_registry import SpecRegistry
from tests.e2e.lifecycle.client import Cri
from tests.e2e.odd_images.case import Case, Outcome
from tests.e2e.odd_images.corpus import CASES
from tests.e2e.odd_images.draft import Blob, config, drafted, having
from tests.e2e.odd_images.page import PAGE, with_list
from tests.e2e.odd_images.run import Runner

EACH_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))


@pytest.fixture(scope="module")
def odd_registry() -> Iterator[SpecRegistry]:
    with SpecRegistry() as running:
        yield running


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A folder with a short name, for sockets."""
    with tempfile.TemporaryDirectory(prefix="pfo-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def phantom(home: Path, odd_registry: SpecRegistry) -> Iterator[Runner]:
    daemon = Daemon(home / "p", {"pools": [{"name": "default", "size": 1}]})
    with running(daemon, home / "logs-p", odd_registry) as runner:
        yield runner


@pytest.fixture(scope="module")
def containerd(home: Path, odd_registry: SpecRegistry) -> Iterator[Runner]:
    pause = [
        having(layers=[Blob.packed(program_layer("pause", PAUSE_SOURCE))]),
        config(Entrypoint=["/pause"], Cmd=None),
    ]
    choices = Choices(
        drafted("pause", pause).publish(odd_registry), bridge="pfcorpus0", subnet="10.213.0.0/16"
    )
    with running(Containerd(home / "c", choices), home / "logs-c", odd_registry) as runner:
        yield runner


@contextmanager
def running(daemon: Daemon | Containerd, logs: Path, registry: SpecRegistry) -> Iterator[Runner]:
    """`daemon` with one pod for all containers."""
    serve_from(registry.host, daemon.registries, registry.host)
    with daemon, closing(Cri(daemon.endpoint)) as cri:
        yield Runner(cri, cri.pod(logs, hostname="odd").run_sandbox(), registry.host)


@pytest.mark.root
@EACH_CASE
def test_an_odd_image_comes_to_what_is_expected(
    case: Case, phantom: Runner, odd_registry: SpecRegistry
) -> None:
    check(case, phantom, odd_registry, case.expected)


@pytest.mark.root
@pytest.mark.long
@EACH_CASE
def test_what_is_recorded_of_containerd_is_true(
    case: Case, containerd: Runner, odd_registry: SpecRegistry
) -> None:
    check(case, containerd, odd_registry, case.outcome)


def check(case: Case, runner: Runner, registry: SpecRegistry, expected: Outcome) -> None:
    outcome = runner.run(case, drafted(case.name, case.changes).publish(registry), expected)
    if outcome != expected:
        pytest.fail(f"{case.odd}\n{outcome!r} {runner.why}\n    instead of {expected!r}", pytrace=False)


def test_each_case_has_a_name_of_its_own() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 60


def test_a_better_outcome_is_another_one_than_containerds() -> None:
    """When containerd comes to the same, what is recorded of it is wrong, and then this entry has to go."""
    assert [case.name for case in CASES if case.better and case.better.outcome == case.outcome] == []


def test_the_page_lists_the_corpus() -> None:
    page = PAGE.read_text()
    assert page == with_list(page), "python -m tests.e2e.odd_images writes it anew"

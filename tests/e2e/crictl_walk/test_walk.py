"""Every crictl command on our daemon and on containerd, step by step, compared."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.cgroups import remove_cgroups
from harness.containerd import Choices, Containerd
from harness.daemon import Daemon
from harness.registry import Registry
from harness.tools import tool
from tests.e2e.crictl_walk.compare import Reader, Side, compare
from tests.e2e.crictl_walk.differences import BLANKS, EXPECTED, RULES, Expected, unexpected
from tests.e2e.crictl_walk.steps import walk
from tests.e2e.crictl_walk.walker import Output, Walker
from tests.e2e.critest.images import REGISTRIES, SANDBOX, published

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A folder with a short name, for sockets, that pods in user namespaces can pass through."""
    with tempfile.TemporaryDirectory(prefix="pfw-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture(scope="module")
def runtimes(home: Path) -> Iterator[dict[Side, Containerd | Daemon]]:
    """Both, with the same images to pull and IPv4 only."""
    choices = Choices(sandbox_image=f"{REGISTRIES[0]}/{SANDBOX}", bridge="pfwalk0", host_ports=True)
    theirs = Containerd(home / "c", choices)
    ours = Daemon(home / "p", {"pools": [{"name": "default", "size": 2}]})
    ours.config["network"]["subnets"] = ours.config["network"]["subnets"][:1]
    with Registry(home / "registry", storage=published()) as registry:
        registry.mirror(theirs.registries, REGISTRIES)
        registry.mirror(ours.registries, REGISTRIES)
        with theirs, ours:
            yield {"theirs": theirs, "ours": ours}


@pytest.fixture(scope="module")
def walkers(home: Path, runtimes: dict[Side, Containerd | Daemon]) -> Iterator[dict[Side, Walker]]:
    made = {
        side: Walker(runtime.endpoint, home / f"walk-{side}", f"/{home.name}-{side}")
        for side, runtime in runtimes.items()
    }
    yield made
    for walker in made.values():
        remove_cgroups(walker.cgroup)


@pytest.fixture(scope="module")
def outputs(walkers: dict[Side, Walker]) -> dict[Side, dict[str, Output]]:
    """What each step printed on each runtime; they walk side by side, mostly waiting for themselves."""
    tool("crictl")
    with ThreadPoolExecutor() as threads:
        walks = {side: threads.submit(walker.walk, walk()) for side, walker in walkers.items()}
    return {side: walked.result() for side, walked in walks.items()}


def test_crictl_prints_what_it_prints_on_containerd(
    walkers: dict[Side, Walker], outputs: dict[Side, dict[str, Output]]
) -> None:
    readers = {side: Reader(walker.known, BLANKS) for side, walker in walkers.items()}
    met: set[Expected] = set()
    report = []
    for step, theirs in outputs["theirs"].items():
        lines = compare(step, theirs, outputs["ours"][step], readers, RULES)
        if lines := unexpected(step, lines, met):
            report += [f"crictl {step}", *(f"    {line[:400]}" for line in lines)]
    report += [
        f"no longer met, take it out: {entry}" for entry in EXPECTED if entry not in met and not entry.chance
    ]
    if report:
        pytest.fail("\n".join(["crictl on containerd → on phantom:", *report]), pytrace=False)


def test_the_walk_has_every_command() -> None:
    """So that a newer crictl's commands are not forgotten."""
    walked = {step.words[0] for step in walk()}
    commands = crictl_commands()
    assert len(commands) > 25
    assert commands - walked == {"help"}


def crictl_commands() -> set[str]:
    """The first name of each command that `crictl --help` lists."""
    page = subprocess.run([tool("crictl"), "--help"], capture_output=True, text=True, check=True).stdout
    listing = page.partition("COMMANDS:")[2].partition("GLOBAL OPTIONS:")[0]
    return set(re.findall(r"^\s+([\w-]+)", listing, re.MULTILINE))


def test_the_walk_left_no_pod(walkers: dict[Side, Walker], outputs: dict[Side, dict[str, Output]]) -> None:
    for side in walkers:
        assert outputs[side]["pods -q #2"].stdout == ""

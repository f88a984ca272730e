"""One run of the pinned critest, and what became of each of its specs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.tools import tool

Outcome = Literal["passed", "failed", "skipped"]
TIME_LIMIT_SECONDS = 540
# Processes of the suite at a time. Its specs mostly wait for what they started: more than cores is faster.
PARALLEL = 4


@dataclass(frozen=True)
class Spec:
    """A spec's group (critest's outermost name), whole name, outcome and the reason for it.

    `place` is where in critest's source it failed.
    """

    group: str
    name: str
    outcome: Outcome
    reason: str = ""
    place: str = ""

    def __str__(self) -> str:
        place = f" ({self.place})" if self.place else ""
        return f"{self.group} / {self.name}{place}: {self.reason or self.outcome}"


class Report:
    """The specs of one run by name."""

    def __init__(self, specs: Iterable[Spec]):
        self.specs = {spec.name: spec for spec in specs}

    def with_outcome(self, outcome: Outcome) -> list[Spec]:
        return [spec for spec in self.specs.values() if spec.outcome == outcome]

    @classmethod
    def read(cls, path: Path) -> Report:
        """Parses ginkgo's JSON report; a failure outside of any spec counts as a spec of that name."""
        (suite,) = json.loads(path.read_text())
        found = [spec_of(entry) for entry in suite["SpecReports"] if counts(entry)]
        if not found:
            raise RuntimeError(f"{path}: no spec ran: {suite.get('SpecialSuiteFailureReasons')}")
        return cls(found)


def counts(entry: dict[str, Any]) -> bool:
    """Whether this is a spec that was asked for, or a step around the specs that went wrong.

    Specs that the command line left out (benchmarks always are) count as skipped without saying why.
    """
    if entry["LeafNodeType"] != "It":
        return bool(entry["State"] != "passed")
    return entry["State"] != "skipped" or "Failure" in entry


def spec_of(entry: dict[str, Any]) -> Spec:
    hierarchy = [text.removeprefix("[k8s.io] ") for text in entry["ContainerHierarchyTexts"] or ["the suite"]]
    states: dict[str, Outcome] = {"passed": "passed", "skipped": "skipped", "pending": "skipped"}
    failure = entry.get("Failure") or {}
    place = failure.get("Location", {})
    where = f"{Path(place['FileName']).name}:{place['LineNumber']}" if place.get("FileName") else ""
    return Spec(
        hierarchy[0],
        " ".join([*hierarchy[1:], entry["LeafNodeText"] or entry["LeafNodeType"]]),
        states.get(entry["State"], "failed"),
        summary(failure.get("Message", "")),
        where,
    )


def summary(message: str) -> str:
    """A failure on one line, without the tree of Go values that gomega prints with an error."""
    lines = [line.strip() for line in message.splitlines()]
    tree = next((index for index, line in enumerate(lines) if line == "{"), len(lines))
    words = " ".join(lines[:tree]).removeprefix("skipped - ")
    return re.sub(r"<[*\w.]+ \| 0x[0-9a-f]+>: |\s+(?=\s)", "", words)


@contextlib.contextmanager
def no_shared_memory_left() -> Iterator[None]:
    """critest makes segments with ipcmk, to look for them in a pod, and leaves them on the host."""
    before = unused_segments()
    try:
        yield
    finally:
        for segment in unused_segments() - before:
            subprocess.run(["ipcrm", "--shmem-id", segment], check=False)


def unused_segments() -> set[str]:
    """Ids of System V shared memory of ipcmk's size here that nobody has attached (proc_sysvipc(5))."""
    rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[3] == str(1 << 20) and row[6] == "0"}


def run_critest(
    endpoint: str, folder: Path, flags: Sequence[str] = (), parallel: int = PARALLEL, focus: str = ""
) -> Report:
    """Runs the suite against `endpoint`; its output goes to `folder`/critest.log, its reports beside it.

    `focus` is a regular expression that chooses specs. Raises RuntimeError when no report was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report, log = folder / "critest.json", folder / "critest.log"
    command: list[str | Path] = [
        tool("critest"),
        f"--runtime-endpoint={endpoint}",
        f"--config={os.devnull}",
        *([f"--parallel={parallel}"] if parallel > 1 else []),
        "--ginkgo.no-color",
        f"--ginkgo.timeout={TIME_LIMIT_SECONDS}s",
        f"--ginkgo.json-report={report}",
        *([f"--ginkgo.focus={focus}"] if focus else []),
        *flags,
    ]
    # In parallel, critest has the `ginkgo` of PATH start its processes. It leaves files in TMPDIR.
    path = f"{tool('ginkgo').parent}:{os.environ['PATH']}"
    with (
        log.open("wb") as output,
        tempfile.TemporaryDirectory(prefix="critest-") as leftovers,
        no_shared_memory_left(),
    ):
        Path(leftovers).chmod(0o711)  # for root in a user namespace: the suite mounts from there
        subprocess.run(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": path, "TMPDIR": leftovers},
            timeout=TIME_LIMIT_SECONDS + 30,
            check=False,  # the report tells
        )
    if not report.exists():
        raise RuntimeError(f"critest wrote no report:\n{log.read_text(errors='replace')[-4000:]}")
    return Report.read(report)

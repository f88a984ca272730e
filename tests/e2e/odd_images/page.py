"""The list of odd images in docs/images.md, made of the corpus."""

from __future__ import annotations

import re

from harness.tools import ROOT
from tests.e2e.odd_images.case import Case, Outcome
from tests.e2e.odd_images.corpus import CASES, TOPICS

PAGE = ROOT / "docs" / "images.md"
HEADING = "## Odd images that are tested"
LONGEST = 90
INTRODUCTION = """
{count} images, built by the tests in `tests/e2e/odd_images`, are pulled and run. Each is normal except for
the oddity that is listed. The expected outcome is that of containerd 2.3.4 with runc (`-m long` checks it),
except for {better} images of which another outcome is better: those say why. Compared are the output (`⏎`
ends a line) and the exit code, or else the step that failed and the class of its gRPC code. `look` is a
program in the image that prints a tree, with modes and owners where they are unusual. `python -m
tests.e2e.odd_images` writes this list; a test fails if it differs from the corpus.
"""


def with_list(page: str) -> str:
    """`page` with the section of odd images as the corpus has it, added at the end if there is none."""
    before, found, rest = page.partition(f"{HEADING}\n")
    after = re.search(r"^## ", rest, re.MULTILINE) if found else None
    behind = f"\n{rest[after.start() :]}" if after else ""
    return before.rstrip("\n") + f"\n\n{HEADING}\n{section()}" + behind


def section() -> str:
    better = sum(case.better is not None for case in CASES)
    parts = [INTRODUCTION.format(count=len(CASES), better=better)]
    for topic, cases in TOPICS.items():
        rows = "\n".join(row(case) for case in cases)
        parts.append(f"\n### {topic}\n\n| Image | What is odd | Outcome |\n|---|---|---|\n{rows}\n")
    return "".join(parts)


def row(case: Case) -> str:
    outcome = told(case.expected)
    if case.better:
        outcome = f"{outcome} (containerd: {told(case.outcome)}): {case.better.why}"
    return f"| {case.name} | {case.odd} | {outcome} |"


def told(outcome: Outcome) -> str:
    """In a cell of a table: what was printed as code, cut off where it is long."""
    if outcome.step:
        return str(outcome)
    text = " ⏎ ".join(outcome.output.splitlines())
    cut = text if len(text) <= LONGEST else f"{text[:LONGEST].rstrip()} …"
    printed = "`{}`".format(cut.replace("|", "\\|")) if cut else "nothing printed"
    return f"exit {outcome.exit_code}: {printed}" if outcome.exit_code else printed

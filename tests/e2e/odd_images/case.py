"""What a case of the corpus is, and what a runtime can come to with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.e2e.odd_images.draft import Change

PULL_ONLY = "pull only"
STATUS = "image status"
STOPPED = "stopped"


@dataclass(frozen=True)
class Outcome:
    """How far it went: refused at `step` ("" when it ran), or `output` and the exit code.

    `kind` of a refusal is the class of its gRPC code: see `run.KINDS`.
    """

    output: str = ""
    exit_code: int = 0
    step: str = ""
    kind: str = ""

    def __str__(self) -> str:
        if self.step:
            return f"{self.kind} at {self.step}"
        lines = " ⏎ ".join(self.output.splitlines())
        return " ".join(word for word in (f"exit {self.exit_code}" * bool(self.exit_code), lines) if word)


@dataclass(frozen=True)
class Better:
    """Where what happens here differs from containerd, and why that is better."""

    outcome: Outcome
    why: str


@dataclass(frozen=True)
class Case:
    """An image that is sane but for `changes`, and what runs in it.

    `command`: a script for sh, words, () for what the image says, or PULL_ONLY, STATUS (what ImageStatus says
    of it), STOPPED (the image's own command is stopped with a second's grace). `outcome` is containerd's.
    """

    name: str
    odd: str
    changes: Sequence[Change]
    command: str | Sequence[str]
    outcome: Outcome
    better: Better | None = None

    @property
    def expected(self) -> Outcome:
        """What has to happen here."""
        return self.better.outcome if self.better else self.outcome


def prints(*lines: str) -> Outcome:
    return Outcome("\n".join(lines))


def exits(code: int, *lines: str) -> Outcome:
    return Outcome("\n".join(lines), code)


def refused(step: str, kind: str = "refused") -> Outcome:
    return Outcome(step=step, kind=kind)

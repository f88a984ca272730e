"""What this node's kernel gives a runtime, found by trying, and what happens where it gives less.

The attempts unshare namespaces, mount and load filters, so they run in a process of their own that
keeps nothing: with its end, all that it tried is gone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from typing import Literal

from phantom_cri.codec import DecodeError, Record, from_json
from phantom_cri.errors import DeadlineExceeded, Internal

EXAMINATION_SECONDS = 20.0

CheckState = Literal["ok", "degraded", "missing"]


class Check(Record, frozen=True):
    """One feature. `detail`: what was found; for `degraded` also what happens instead."""

    name: str
    state: CheckState
    detail: str
    required: bool = False


def runnable(checks: Iterable[Check]) -> bool:
    """Whether pods can run here at all."""
    return not any(check.required and check.state == "missing" for check in checks)


def examine() -> tuple[Check, ...]:
    """Try everything in a child process; blocks for about 0.3 s. Raises Internal or DeadlineExceeded."""
    command = [sys.executable, "-m", "phantom_cri.doctor"]
    try:
        child = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=EXAMINATION_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(f"doctor: no answer within {EXAMINATION_SECONDS:.0f} s") from None
    try:
        return from_json(child.stdout, tuple[Check, ...])
    except DecodeError:
        last_words = child.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise Internal(f"doctor: exit code {child.returncode}: {last_words}") from None

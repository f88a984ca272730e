"""Checks which kernel features this node has, by trying them, and reports the fallback in use.

The probes unshare namespaces, mount and load filters, so they run in a process of their own: when it ends,
the kernel cleans up everything.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from typing import Literal

from phantom_cri.codec import DecodeError, Record, from_json
from phantom_cri.errors import DeadlineExceeded, Internal

EXAMINATION_SECONDS = 20.0

CheckState = Literal["ok", "degraded", "missing", "unused"]


class Check(Record, frozen=True):
    """One feature. `detail`: what was found; for `degraded` also what happens instead.

    `unused`: this version does not use it, whether the kernel has it or not.
    """

    name: str
    state: CheckState
    detail: str
    required: bool = False


def runnable(checks: Iterable[Check]) -> bool:
    """Whether pods can run here at all."""
    return not any(check.required and check.state == "missing" for check in checks)


async def examine() -> tuple[Check, ...]:
    """Run all probes in a child process (about 0.3 s). Raises Internal, DeadlineExceeded."""
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "phantom_cri.doctor", stdin=nothing, stdout=pipe, stderr=pipe
    )
    try:
        async with asyncio.timeout(EXAMINATION_SECONDS):
            output, complaint = await child.communicate()
    except TimeoutError:
        raise DeadlineExceeded(f"doctor: no answer within {EXAMINATION_SECONDS:g} s") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    try:
        return from_json(output, tuple[Check, ...])
    except DecodeError:
        last_words = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        raise Internal(f"doctor: exit code {child.returncode}: {last_words}") from None

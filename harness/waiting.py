"""Waits for a condition, instead of sleeping for a fixed time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

PATIENCE = float(os.environ.get("PHANTOM_TEST_PATIENCE", "1"))
"""Factor for all timeouts: an emulated machine is slow."""


def wait_until(
    check: Callable[[], Result], what: str, timeout: float = 10.0, interval: float = 0.01
) -> Result:
    """Calls `check` until it returns a true value, and returns that.

    `timeout` and `interval` are seconds. Raises TimeoutError naming `what` and the last answer.
    """
    end = time.monotonic() + timeout * PATIENCE
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout:g} s for {what}; last answer: {answer!r}")
        time.sleep(interval)

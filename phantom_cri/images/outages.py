"""Remembers registry endpoints that failed recently.

This only changes the order and the time of attempts: such an endpoint is tried last, never skipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

FIRST_S = 60.0
LONGEST_S = 600.0
LONGEST_WAIT_S = 60.0
"""Longest Retry-After in seconds that is waited for; with a longer one the pull does not retry there."""


@dataclass(slots=True)
class _Outage:
    until: float
    length: float
    closed_until: float = 0.0


class Outages:
    """By endpoint URL. `clock`: seconds, monotonic. `size`: how many are remembered, the latest ones."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, size: int = 256) -> None:
        self._clock = clock
        self._size = size
        self._outages: dict[str, _Outage] = {}

    def failed(self, url: str, retry_after_s: float = 0.0) -> None:
        """`url` failed. Remembered for a minute, and for twice as long each time that it fails again after
        that, up to ten minutes.
        """
        now = self._clock()
        before = self._outages.pop(url, None)
        length = FIRST_S
        if before is not None:
            length = before.length if now < before.until else min(before.length * 2, LONGEST_S)
        outage = _Outage(now + max(length, min(retry_after_s, LONGEST_S)), length)
        closed_until = now + retry_after_s if retry_after_s <= LONGEST_WAIT_S else 0.0
        outage.closed_until = max(closed_until, before.closed_until if before else 0.0)
        while len(self._outages) >= self._size:
            del self._outages[next(iter(self._outages))]
        self._outages[url] = outage

    def worked(self, url: str) -> None:
        if url in self._outages and self.wait_s(url) == 0:
            del self._outages[url]

    def is_bad(self, url: str) -> bool:
        outage = self._outages.get(url)
        return outage is not None and self._clock() < outage.until

    def wait_s(self, url: str) -> float:
        """Seconds until `url` may be tried again (Retry-After); 0 without one."""
        outage = self._outages.get(url)
        return max(0.0, outage.closed_until - self._clock()) if outage else 0.0

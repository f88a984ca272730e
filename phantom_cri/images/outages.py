"""Which endpoints of registries lately failed, remembered for a while by the node.

It only changes the order in which endpoints are tried, and how soon: one that is wrongly
remembered is tried last, never left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

FIRST_S = 60.0
LONGEST_S = 600.0
LONGEST_WAIT_S = 60.0
"""The most that a server's Retry-After is waited for; who asks for more is not asked again by that pull."""


@dataclass(slots=True)
class _Outage:
    until: float
    length: float
    closed_until: float = 0.0


class Outages:
    """By endpoint URL. `clock`: seconds, monotonic. `size`: how many are remembered, the latest of them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, size: int = 256) -> None:
        self._clock = clock
        self._size = size
        self._outages: dict[str, _Outage] = {}

    def failed(self, url: str, retry_after_s: float = 0.0) -> None:
        """`url` did not do what it is for. Remembered for a minute, and for twice as long each time
        that it fails again when this was over, up to ten minutes.
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
        """Seconds until `url` wants to be asked again (Retry-After); 0 when it said nothing."""
        outage = self._outages.get(url)
        return max(0.0, outage.closed_until - self._clock()) if outage else 0.0

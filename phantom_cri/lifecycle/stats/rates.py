"""CPU rates: nanoseconds of CPU time per second, between two readings."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

_SECOND = 1_000_000_000

SHORTEST_NS = _SECOND
"""Readings closer than this are too inaccurate: the previous rate is reported again."""

LONGEST_NS = 120 * _SECOND
"""A reading older than this is not used: the rate starts again."""


class _Reading(NamedTuple):
    timestamp: int
    usage_ns: int
    rate: int | None


class Rates:
    def __init__(self) -> None:
        self._last: dict[str, _Reading] = {}

    def rate(self, object_id: str, timestamp: int, usage_ns: int) -> int | None:
        """Nanocores since an earlier reading; None for the first one: clients may compute their own."""
        last = self._last.get(object_id)
        if last is not None and timestamp < last.timestamp:
            last = None  # the node's clock was set back
        if last is not None and timestamp - last.timestamp < SHORTEST_NS:
            return last.rate
        found = None
        if last is not None and timestamp - last.timestamp <= LONGEST_NS:
            found = max(0, usage_ns - last.usage_ns) * _SECOND // (timestamp - last.timestamp)
        self._last[object_id] = _Reading(timestamp, usage_ns, found)
        return found

    def __len__(self) -> int:
        return len(self._last)

    def keep(self, known: Collection[str]) -> None:
        """Drop the readings of all objects except these."""
        self._last = {key: value for key, value in self._last.items() if key in known}

"""Percentiles, and the targets that a run is held against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.memory import PodFootprint

PHANTOM, EMPTY_POOL = "phantom", "phantom, empty pool"
PEERS = ("containerd + runc", "containerd + crun")


@dataclass(frozen=True)
class Summary:
    """p50, p95 and the number of samples, in the samples' unit."""

    p50: float
    p95: float
    n: int


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank: a value that was really seen."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summary(values: Sequence[float]) -> Summary:
    return Summary(percentile(values, 0.5), percentile(values, 0.95), len(values))


@dataclass
class Result:
    """All that was measured of one contender."""

    versions: dict[str, str]
    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    cycles_per_second: list[float] = field(default_factory=list)
    mib_per_second: dict[str, list[float]] = field(default_factory=dict)
    memory: PodFootprint | None = None
    summaries: dict[str, Summary] = field(default_factory=dict)

    def summarise(self) -> None:
        self.summaries = {name: summary(values) for name, values in self.milliseconds.items()}

    def rate(self, name: str) -> float:
        """MiB/s: the median round."""
        return percentile(self.mib_per_second[name], 0.5)

    def cycles(self) -> float:
        """Pod cycles per second: the median burst."""
        return percentile(self.cycles_per_second, 0.5)


@dataclass(frozen=True)
class Target:
    """One line of what was aimed at: the measured factor against the wanted one, or an absolute limit."""

    text: str
    measured: str
    wanted: str
    met: bool


def targets(results: Mapping[str, Result]) -> list[Target]:
    """Phantom against the better peer; empty without Phantom or without a peer."""
    peers = [results[name] for name in PEERS if name in results]
    if PHANTOM not in results or not peers:
        return []
    warm, empty = results[PHANTOM], results.get(EMPTY_POOL)
    lines = [
        _times(peers, warm, "warm pod, p50", "pod", "p50", 20),
        _times(peers, warm, "warm pod, p95", "pod", "p95", 12),
        _times(peers, warm, "ExecSync, p50", "ExecSync", "p50", 4),
        _times(peers, warm, "teardown, p50", "teardown", "p50", 10),
    ]
    if empty is not None:
        lines.insert(2, _times(peers, empty, "empty pool, p95", "pod", "p95", 6))
    factor = warm.cycles() / max(peer.cycles() for peer in peers)
    lines.append(Target("pod cycles per second, 8 at once", f"{factor:.1f} ×", "≥ 10 ×", factor >= 10))
    lines += _streams(peers, warm)
    if warm.memory is not None:
        pss, processes = warm.memory.pss_mib, warm.memory.processes
        lines.append(Target("PSS per idle pod", f"{pss:.2f} MiB", "≤ 0.5 MiB", pss <= 0.5))
        lines.append(Target("processes per idle pod", f"{processes:.2g}", "1", processes <= 1))
    return lines


def _streams(peers: Sequence[Result], ours: Result) -> list[Target]:
    """No stream may be slower than the better peer's; empty where streams were not measured."""
    lines = []
    if "crictl exec true" in ours.summaries:
        lines.append(_times(peers, ours, "crictl exec true, p50", "crictl exec true", "p50", 1))
    for name in ours.mib_per_second:
        factor = ours.rate(name) / max(peer.rate(name) for peer in peers)
        lines.append(Target(f"{name}, MiB/s", f"{factor:.1f} ×", "≥ 1 ×", factor >= 1))
    return lines


def _times(peers: Sequence[Result], ours: Result, text: str, name: str, which: str, wanted: float) -> Target:
    """How many times faster than the faster peer."""
    best = min(float(getattr(peer.summaries[name], which)) for peer in peers)
    factor = best / float(getattr(ours.summaries[name], which))
    return Target(text, f"{factor:.1f} ×", f"≥ {wanted:g} ×", factor >= wanted)

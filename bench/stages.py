"""Where a start's time goes inside Phantom, from its own histograms, and the floor under every runtime."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from bench.numbers import Summary, summary
from tests.e2e.harness.tools import ROOT

METRIC = "phantom_pod_start_seconds"
FLOOR = ROOT / "phantom_cri" / "native" / "floor"


@dataclass(frozen=True)
class Stage:
    """One stage of `start` (warm or cold) starts: their number, mean, and p95 from the buckets; in ms."""

    stage: str
    start: str
    count: int
    mean_ms: float
    p95_ms: float


def read_stages(page: str) -> list[Stage]:
    """The stages of all starts since the daemon began, in the order the page has them."""
    buckets: dict[tuple[str, str], dict[float, float]] = defaultdict(dict)
    sums: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(page):
        if family.name != METRIC:
            continue
        for sample in family.samples:
            key = (sample.labels["stage"], sample.labels["start"])
            if sample.name.endswith("_bucket"):
                buckets[key][float(sample.labels["le"])] = sample.value
            elif sample.name.endswith("_sum"):
                sums[key] = sample.value
    return [_stage(*key, bounds, sums[key]) for key, bounds in buckets.items() if max(bounds.values()) > 0]


def _stage(stage: str, start: str, buckets: Mapping[float, float], total: float) -> Stage:
    count = max(buckets.values())
    return Stage(stage, start, int(count), total / count * 1000, quantile(buckets, 0.95) * 1000)


def quantile(buckets: Mapping[float, float], share: float) -> float:
    """The value below which `share` of the observations lie, by a straight line within its bucket.

    `buckets`: upper bound → observations at or below it. What lies above all of them counts as the last.
    """
    wanted = share * max(buckets.values())
    lower, below = 0.0, 0.0
    for bound, at_or_below in sorted(buckets.items()):
        if at_or_below >= wanted:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (wanted - below) / max(at_or_below - below, 1e-9)
        lower, below = bound, at_or_below
    return lower


def measure_floor(runs: int) -> dict[str, Summary]:
    """What the kernel's work for a pod takes in C alone, by step, in milliseconds; empty without the program.

    The program prints one line for each run: `STEP MILLISECONDS` pairs, separated by blanks.
    """
    if not FLOOR.is_file():
        return {}
    lines = subprocess.run([FLOOR, str(runs)], capture_output=True, text=True, check=True).stdout.splitlines()
    steps: dict[str, list[float]] = defaultdict(list)
    for words in map(str.split, lines):
        for step, milliseconds in zip(words[::2], words[1::2], strict=True):
            steps[step].append(float(milliseconds))
    return {step: summary(values) for step, values in steps.items()}

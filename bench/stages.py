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
SUM = "sum"

Series = tuple[str, str, str]
FLOOR = ROOT / "phantom_cri" / "native" / "floor"


@dataclass(frozen=True)
class Stage:
    """One stage of `start` (warm or cold) starts: their number, mean, and p95 from the buckets; in ms."""

    stage: str
    start: str
    count: int
    mean_ms: float
    p95_ms: float


class Stages:
    """The daemon's histograms over chosen stretches of time: all that lies between `begin` and `end`."""

    def __init__(self) -> None:
        self._total: dict[Series, float] = defaultdict(float)
        self._before: dict[Series, float] = {}

    def begin(self, page: str) -> None:
        self._before = read_series(page)

    def end(self, page: str) -> None:
        for series, value in read_series(page).items():
            self._total[series] += value - self._before.get(series, 0.0)

    def stages(self) -> list[Stage]:
        """In the order in which the daemon first told them."""
        keys = dict.fromkeys((stage, start) for stage, start, _ in self._total)
        return [stage for stage in (self._stage(*key) for key in keys) if stage.count]

    def _stage(self, stage: str, start: str) -> Stage:
        bounds = {
            float(bound): value
            for (its_stage, its_start, bound), value in self._total.items()
            if (its_stage, its_start) == (stage, start) and bound != SUM
        }
        count, seconds = max(bounds.values()), self._total[stage, start, SUM]
        return Stage(stage, start, int(count), seconds / max(count, 1) * 1000, quantile(bounds, 0.95) * 1000)


def read_series(page: str) -> dict[Series, float]:
    """(stage, start, upper bound) → starts at or below it; with SUM for a bound, the seconds of all."""
    found: dict[Series, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples if family.name == METRIC else ():
            key = (sample.labels["stage"], sample.labels["start"])
            if sample.name.endswith("_bucket"):
                found[*key, sample.labels["le"]] = sample.value
            elif sample.name.endswith("_sum"):
                found[*key, SUM] = sample.value
    return found


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

"""Where a start's time goes inside Phantom, from its own histograms, and the floor under every runtime."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from bench.numbers import Summary
from harness.image import busybox_layer
from phantom_cri.native.build import NATIVE, WARNINGS

METRIC = "phantom_pod_start_seconds"
SUM = "sum"

Series = tuple[str, str, str]


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


def build_floor(target: Path) -> None:
    """Compiles floor.c, the kernel's own share, at `target`. Raises CalledProcessError."""
    source = Path(__file__).with_name("floor.c")
    command = [os.environ.get("CC", "cc"), *WARNINGS, f"-I{NATIVE}", "-O2", "-o", str(target), str(source)]
    subprocess.run(command, check=True)


def measure_floor(runs: int) -> dict[str, Summary]:
    """What the kernel's work for a warm pod takes in C alone, in milliseconds."""
    with tempfile.TemporaryDirectory(prefix="phantom-floor-") as name:
        folder = Path(name)
        build_floor(folder / "floor")
        with tarfile.open(fileobj=io.BytesIO(busybox_layer())) as layer:
            # Made by ourselves a moment ago.
            layer.extractall(folder / "root", filter="fully_trusted")  # noqa: S202
        done = subprocess.run(
            [folder / "floor", str(runs), folder / "root", "/bin/true"],
            capture_output=True,
            text=True,
            check=True,
        )
    said = json.loads(done.stdout)
    steps = {"until execve": "start_us", "whole cycle": "cycle_us"}
    return {
        step: Summary(said[key]["p50"] / 1000, said[key]["p95"] / 1000, said["iterations"])
        for step, key in steps.items()
    }

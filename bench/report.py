"""A run's results: JSON with every sample, a plot, and the table of docs/benchmarks.md."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.numbers import Result, Summary, targets
from bench.stages import Stage
from harness.cgroups import MOUNT

ROWS = (
    ("pod", "pod: Run + Create + Start"),
    ("RunPodSandbox", "· RunPodSandbox"),
    ("CreateContainer", "· CreateContainer"),
    ("StartContainer", "· StartContainer"),
    ("ExecSync", "ExecSync `true`"),
    ("teardown", "teardown: Stop + Remove"),
    ("pod, 8 at once", "pod, 8 at once"),
    ("crictl exec true", "`crictl exec` of `true`, the whole process"),
)
RATES = (
    ("crictl exec, out", "`crictl exec`, its output, MiB/s"),
    ("crictl exec, in", "`crictl exec -i`, its input, MiB/s"),
    ("port-forward", "`crictl port-forward`, download, MiB/s"),
)
BEGIN, END = "<!-- results: begin (written by make bench) -->", "<!-- results: end -->"


@dataclass(frozen=True)
class Report:
    """One run of the benchmark."""

    results: Mapping[str, Result]
    stages: Sequence[Stage]
    floor: Mapping[str, Summary]
    settings: Mapping[str, object]

    def write_json(self, path: Path) -> None:
        content = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "settings": dict(self.settings),
            "results": {name: asdict(result) for name, result in self.results.items()},
            "stages": [asdict(stage) for stage in self.stages],
            "floor": {step: asdict(values) for step, values in self.floor.items()},
            "targets": [asdict(target) for target in targets(self.results)],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1))

    def markdown(self) -> str:
        parts = [self._machine_line(), self._times_table(), self._load_table()]
        if lines := targets(self.results):
            rows = [[t.text, t.measured, t.wanted, "yes" if t.met else "**no**"] for t in lines]
            parts.append(_table(["against the better peer", "measured", "wanted", "met"], rows))
        if self.stages:
            rows = [
                [s.stage, s.start, str(s.count), f"{s.mean_ms:.3f}", f"{s.p95_ms:.3f}"] for s in self.stages
            ]
            parts.append(_table(["stage inside Phantom", "start", "n", "mean, ms", "p95, ms"], rows))
        if self.floor:
            rows = [[step, f"{one.p50:.3f}", f"{one.p95:.3f}"] for step, one in self.floor.items()]
            parts.append(_table(["kernel floor, in C alone", "p50, ms", "p95, ms"], rows))
        return "\n\n".join(parts)

    def _machine_line(self) -> str:
        versions = {tool: text for result in self.results.values() for tool, text in result.versions.items()}
        names = "; ".join(f"{tool}: {text}" for tool, text in versions.items())
        host = machine()
        return (
            f"{datetime.now(UTC):%Y-%m-%d}, {host['cpu']}, {host['cores']} cores, Linux {host['kernel']}, "
            f"{host['cgroups']}, Python {host['python']}. {names}."
        )

    def _times_table(self) -> str:
        names = list(self.results)
        rows = []
        for key, text in ROWS:
            found = [self.results[name].summaries.get(key) for name in names]
            if any(found):
                rows.append([text, *(f"{one.p50:.2f} / {one.p95:.2f}" if one else "" for one in found)])
        return _table(["p50 / p95, ms", *names], rows)

    def _load_table(self) -> str:
        names = list(self.results)
        results = [self.results[name] for name in names]
        rows = [["pod cycles per second, 8 at once", *(f"{one.cycles():.1f}" for one in results)]]
        for key, text in RATES:
            if any(one.mib_per_second for one in results):
                rows.append(
                    [text, *(f"{one.rate(key):.0f}" if one.mib_per_second else "" for one in results)]
                )
        memory = [one.memory for one in results]
        rows.append(["PSS per idle pod, MiB", *(f"{one.pss_mib:.2f}" if one else "" for one in memory)])
        rows.append(["processes per idle pod", *(f"{one.processes:.2g}" if one else "" for one in memory)])
        return _table(["load, streams and memory", *names], rows)

    def write_docs(self, page: Path) -> None:
        """Replaces what stands between the markers; raises ValueError when the page has none."""
        text = page.read_text()
        pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{page}: no place for the results: {BEGIN}")
        page.write_text(pattern.sub(lambda _: f"{BEGIN}\n\n{self.markdown()}\n\n{END}", text))

    def plot(self, path: Path) -> None:
        """Bars of p50 with p95 as a whisker, on a logarithmic scale; pod cycles per second beside them."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, (times, cycles) = pyplot.subplots(1, 2, figsize=(12, 4.5), width_ratios=[3, 1])
        groups = [("pod", "pod start"), ("ExecSync", "ExecSync"), ("teardown", "teardown")]
        width = 0.8 / len(self.results)
        for number, (name, result) in enumerate(self.results.items()):
            shown = [result.summaries[key] for key, _ in groups]
            places = [place + number * width for place in range(len(groups))]
            middle = [one.p50 for one in shown]
            above = [one.p95 - one.p50 for one in shown]
            times.bar(places, middle, width, yerr=[[0.0] * len(above), above], label=name, capsize=3)
            cycles.bar(number, result.cycles())
        times.set_yscale("log")
        times.set_ylim(bottom=0.1)
        times.set_ylabel("ms: p50, whisker to p95")
        times.set_xticks(
            [place + 0.4 - width / 2 for place in range(len(groups))], [text for _, text in groups]
        )
        times.legend()
        cycles.set_ylabel("pod cycles per second, 8 at once")
        cycles.set_xticks(range(len(self.results)), list(self.results), rotation=30, ha="right")
        figure.tight_layout()
        figure.savefig(path, dpi=120)
        pyplot.close(figure)


def machine() -> dict[str, object]:
    models = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "cgroups": "cgroup v2" if (MOUNT / "cgroup.controllers").exists() else "cgroup v1 or hybrid",
        "python": platform.python_version(),
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

"""`python -m bench`: all contenders in one run, taking turns, so that drift of the machine hits all alike."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench.contenders import Containerd, Contender, Images, Phantom, Running, running
from bench.images import publish_images
from bench.memory import measure_memory
from bench.numbers import EMPTY_POOL, PEERS, PHANTOM, Result, targets
from bench.report import Report
from bench.stages import Stage, Stages, measure_floor
from bench.streams import measure_streams
from bench.workload import Samples, measure_burst, measure_serial
from harness.registry import Registry
from harness.tools import ROOT

WORKERS = 8
POOL_SIZE = 16
WARM_UP_PODS = 3
ALL = (PHANTOM, EMPTY_POOL, *PEERS)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Phantom beside its peers, over CRI")
    parser.add_argument("--quick", action="store_true", help="a few samples of each: does it work at all?")
    parser.add_argument("--only", nargs="+", choices=ALL, default=ALL, metavar="NAME", help=f"some of {ALL}")
    parser.add_argument("--rounds", type=int, default=10, help="times that all contenders take turns")
    parser.add_argument("--pods", type=int, default=20, help="serial pods of each contender in a round")
    parser.add_argument("--execs", type=int, default=5, help="ExecSync calls in each serial pod")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between serial pods, for all")
    parser.add_argument("--burst", type=float, default=3.0, help="seconds of 8 at once in a round")
    parser.add_argument("--idle-pods", type=int, default=20, help="pods that memory is measured over")
    parser.add_argument("--results", type=Path, default=ROOT / "bench/results", help="where JSON and plot go")
    parser.add_argument("--docs", type=Path, help="page whose table is replaced, e.g. docs/benchmarks.md")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.pods, options.execs = 1, 3, 2
        options.burst, options.idle_pods = 1.0, 3
    return options


def contenders(folder: Path, images: Images, names: list[str]) -> list[Contender]:
    """In the order of ALL."""
    found: list[Contender] = []
    if PHANTOM in names:
        found.append(Phantom(folder / "warm", PHANTOM, POOL_SIZE, images))
    if EMPTY_POOL in names:
        found.append(Phantom(folder / "empty", EMPTY_POOL, 0, images))
    for number, runtime in enumerate(("runc", "crun")):
        if f"containerd + {runtime}" in names:
            found.append(Containerd(folder / runtime, runtime, number, images))
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass
class Turn:
    """A contender with what was measured of it so far."""

    running: Running
    samples: Samples = field(default_factory=Samples)
    stages: Stages = field(default_factory=Stages)

    def serial(self, options: argparse.Namespace) -> None:
        """The serial pods of one round, and where their time went if the contender can tell."""
        contender = self.running.contender
        if isinstance(contender, Phantom):
            self.stages.begin(contender.daemon.metrics())
        measure_serial(self.running.maker, options.pods, options.execs, options.pause, self.samples)
        if isinstance(contender, Phantom):
            self.stages.end(contender.daemon.metrics())

    def streams(self, options: argparse.Namespace) -> None:
        """Streams of one round; an empty pool has no part in them."""
        if self.running.contender.name != EMPTY_POOL:
            endpoint = self.running.contender.folder / "cri.sock"
            measure_streams(self.running.maker, endpoint, options.execs, self.samples)

    def result(self, idle_pods: int) -> Result:
        """Measures memory too."""
        made = Result(
            self.running.contender.versions(),
            dict(self.samples.milliseconds),
            self.samples.cycles_per_second,
            dict(self.samples.mib_per_second),
        )
        made.memory = measure_memory(self.running.maker, self.running.marker, idle_pods)
        made.summarise()
        return made


def measure(options: argparse.Namespace, everyone: list[Running]) -> tuple[dict[str, Result], list[Stage]]:
    """All rounds, then memory; results by contender's name, and the stages of serial starts."""
    turns = [Turn(one) for one in everyone]
    for turn in turns:
        measure_serial(turn.running.maker, WARM_UP_PODS, 1, options.pause, Samples())
    for number in range(options.rounds):
        for turn in turns:
            say(f"round {number + 1} of {options.rounds}: {turn.running.contender.name}")
            turn.serial(options)
            measure_burst(turn.running.maker, WORKERS, options.burst, turn.samples)
            turn.streams(options)
    results = {}
    for turn in turns:
        say(f"memory: {turn.running.contender.name}")
        results[turn.running.contender.name] = turn.result(options.idle_pods)
    return results, [stage for turn in turns for stage in turn.stages.stages()]


def run(options: argparse.Namespace) -> Report:
    # Not pytest's folders: socket paths have to be short.
    with tempfile.TemporaryDirectory(prefix="phantom-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        registry = stack.enter_context(Registry(folder / "registry"))
        images = publish_images(folder, registry)
        everyone = [
            stack.enter_context(running(contender, images))
            for contender in contenders(folder, images, list(options.only))
        ]
        results, stages = measure(options, everyone)
        settings = {key: value for key, value in vars(options).items() if isinstance(value, int | float)}
        return Report(results, stages, measure_floor(200), settings)


def main() -> int:
    options = arguments()
    options.load_before = os.getloadavg()[0]
    if options.load_before > 0.5:
        say(f"this machine is busy (load {options.load_before:.2f}): expect worse figures than it can give")
    report = run(options)
    path = options.results / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}.json"
    report.write_json(path)
    report.plot(path.with_suffix(".png"))
    if options.docs:
        report.write_docs(options.docs)
        report.plot(options.docs.with_suffix(".png"))
    print(report.markdown())
    say(f"\nevery sample: {path}")
    return 0 if all(target.met for target in targets(report.results)) else 1


if __name__ == "__main__":
    sys.exit(main())

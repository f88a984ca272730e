"""`python -m bench.shim`: our shim beside runc and crun in the same containerd, taking turns.

`ctr run` of a task until it is started, as its user waits for it, and pods of CRI with a pause container.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.client import CriClient
from bench.contenders import hide_v2_controllers
from bench.images import publish_images
from bench.numbers import summary
from bench.workload import WORKLOAD, PodMaker
from harness.cgroups import remove_cgroups
from harness.containerd import Choices, Containerd
from harness.ctr import Ctr
from harness.daemon import Daemon
from harness.registry import Registry, serve_from
from harness.tools import tool

NAMESPACE = "pfbench"
PODS = "/pfbench-pods"
SHIM = "io.containerd.phantom.v2"
POOL_SIZE = 16


@dataclass(frozen=True)
class Contender:
    name: str
    ctr: Ctr
    flags: tuple[str, ...]
    pods: PodMaker


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.shim", description="the shim beside runc and crun")
    parser.add_argument("--rounds", type=int, default=40, help="times that all take turns")
    rounds = parser.parse_args().rounds
    samples: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="pfb-") as folder, contenders(Path(folder)) as found:
        for number in range(-3, rounds):
            for contender in found:
                times = {"ctr run": run_task(contender, f"t{number}"), **run_pod(contender)}
                for what, milliseconds in times.items() if number >= 0 else ():
                    samples[what, contender.name].append(milliseconds)
    print(f"{'':32}{'p50 ms':>8}{'p95 ms':>8}   n")
    for (what, name), values in sorted(samples.items()):
        found_summary = summary(values)
        print(f"{what:20}{name:12}{found_summary.p50:8.1f}{found_summary.p95:8.1f}{found_summary.n:4}")


@contextlib.contextmanager
def contenders(folder: Path) -> Iterator[list[Contender]]:
    (folder / "p").mkdir()
    daemon = Daemon(folder / "p", {"pools": [{"name": "default", "size": POOL_SIZE}]})
    with contextlib.ExitStack() as stack:
        registry = stack.enter_context(Registry(folder / "registry"))
        images = publish_images(folder, registry)
        stack.enter_context(daemon)
        found = []
        for number, runtime in enumerate(("runc", "crun")):
            choices = Choices(
                sandbox_image=images.pause,
                runtime=runtime,
                bridge=f"pfbs{number}",
                subnet=f"10.{223 + number}.0.0/16",
                prefix=hide_v2_controllers() if runtime == "crun" else (),
                shim=daemon.folder / "shim.sock",
            )
            peer = Containerd(folder / runtime, choices)
            serve_from(registry.host, peer.registries, registry.host)
            stack.enter_context(peer)
            client = CriClient(peer.socket)
            stack.callback(client.close)
            client.pull(images.workload)
            Ctr(peer.socket, NAMESPACE).pull(images.workload)
            logs = folder / f"logs-{number}"
            for name in (runtime, *(["phantom"] if runtime == "runc" else [])):
                handler = "phantom" if name == "phantom" else ""
                pods = PodMaker(client, images.workload, logs, PODS, handler)
                flags = () if name == "phantom" else ("--runc-binary", str(tool(runtime)))
                ctr = Ctr(peer.socket, NAMESPACE, SHIM if name == "phantom" else "io.containerd.runc.v2")
                found.append(Contender(name, ctr, flags, pods))
        for cgroup in (f"/{NAMESPACE}", PODS):
            stack.callback(remove_cgroups, cgroup)
        yield found


def run_task(contender: Contender, name: str) -> float:
    begin = time.perf_counter()
    contender.ctr.start(contender.pods.image, name, *WORKLOAD, flags=contender.flags)
    milliseconds = (time.perf_counter() - begin) * 1000
    contender.ctr.remove(name)
    return milliseconds


def run_pod(contender: Contender) -> dict[str, float]:
    pod = contender.pods.start()
    contender.pods.check_runs(pod)
    contender.pods.remove(pod)
    return pod.durations


if __name__ == "__main__":
    main()

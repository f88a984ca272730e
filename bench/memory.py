"""What a runtime costs per idle pod: PSS and processes of all its own, the containers' processes left out."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from bench.workload import WORKLOAD, PodMaker
from harness.waiting import wait_until

PROC = Path("/proc")


@dataclass(frozen=True)
class Footprint:
    """PSS in bytes and the number of processes."""

    pss: int
    processes: int


@dataclass(frozen=True)
class PodFootprint:
    """Per idle pod: MiB of PSS, and processes beside the container's own."""

    pss_mib: float
    processes: float


def own_processes(marker: str) -> set[int]:
    """Processes with `marker` (NAME=value) in their environment at exec, and all their descendants.

    Shims leave their daemon's process tree but keep its environment; pause containers and fragments may have
    another environment but keep their parent.
    """
    children: dict[int, list[int]] = {}
    marked = []
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
            if marker.encode() in (folder / "environ").read_bytes().split(b"\0"):
                marked.append(int(folder.name))
    found: set[int] = set()
    while marked:
        pid = marked.pop()
        if pid not in found:
            found.add(pid)
            marked += children.get(pid, [])
    return {pid for pid in found if not _is_workload(pid)}


def _is_workload(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return (PROC / str(pid) / "cmdline").read_bytes() == b"".join(
            word.encode() + b"\0" for word in WORKLOAD
        )
    return False


def footprint(marker: str) -> Footprint:
    total = processes = 0
    for pid in own_processes(marker):
        with contextlib.suppress(OSError):
            rollup = (PROC / str(pid) / "smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
            processes += 1
    return Footprint(total * 1024, processes)


def settled_footprint(marker: str, timeout: float = 30.0) -> Footprint:
    """The footprint once the number of processes stood still for two seconds: pools refill, shims leave."""
    seen: list[int] = []

    def still() -> bool:
        seen.append(len(own_processes(marker)))
        return len(seen) >= 10 and len(set(seen[-10:])) == 1

    wait_until(still, "the runtime's processes to settle", timeout, interval=0.2)
    return footprint(marker)


def measure_memory(maker: PodMaker, marker: str, pods: int) -> PodFootprint:
    """Starts `pods` pods, compares the footprint with the one before, and removes them.

    The daemon's own growth counts: it is part of what a pod costs.
    """
    before = settled_footprint(marker)
    started = []
    try:
        for _ in range(pods):
            started.append(maker.start())
        after = settled_footprint(marker)
    finally:
        for pod in started:
            maker.remove(pod)
    return PodFootprint(
        (after.pss - before.pss) / pods / (1 << 20), (after.processes - before.processes) / pods
    )

"""Snapshots of what a daemon has on the host, with which tests check that nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.cgroups import groups_below
from harness.waiting import wait_until

PROC = Path("/proc")


def pids() -> list[int]:
    return [int(folder.name) for folder in PROC.iterdir() if folder.name.isdigit()]


def open_files(pid: int) -> Iterator[str]:
    """The target of each fd of `pid`; empty for a process that has ended."""
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{number}")


def processes_below(folder: Path) -> set[int]:
    """Other processes with an open file below `folder`: fragments keep their pod's folder open."""
    others = set(pids()) - {os.getpid()}
    return {pid for pid in others if any(path.startswith(f"{folder}/") for path in open_files(pid))}


def kill_below(folder: Path) -> None:
    """Kills every process with an open file below `folder`, and waits until all have ended."""

    def gone() -> bool:
        for pid in (found := processes_below(folder)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not found

    wait_until(gone, f"the processes that use {folder} to end")


def mounts_below(folder: Path, pid: int | str = "self") -> list[str]:
    """Mount points below `folder` in the mount namespace of `pid`, in the order of their creation."""
    points = [line.split()[4] for line in (PROC / f"{pid}/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{folder}/")]


def unmount_below(folder: Path) -> None:
    for point in reversed(mounts_below(folder)):
        subprocess.run(["umount", "--lazy", point], check=False)


@dataclass(frozen=True)
class Snapshot:
    """Counts of each kind of object, by name; ids and numbers are blanked, so that pods are comparable."""

    counts: Mapping[str, Counter[str]]

    @classmethod
    def take(cls, folder: Path, pid: int, cgroup: str, bridge: str) -> Snapshot:
        """Of the daemon `pid` with its files in `folder` (shown as ~), its cgroup and bridge."""

        def count(names: Iterable[str]) -> Counter[str]:
            return Counter(_blank(name.replace(str(folder), "~")) for name in names)

        return cls(
            {
                "mounts": count(mounts_below(folder, pid)),
                "cgroups": count(str(group) for group in groups_below(cgroup)),
                "links on the bridge": count(_links(pid, bridge)),
                "nftables": count(_nftables(pid, bridge)),
                "processes": count(_command(one) for one in processes_below(folder)),
                "network namespaces": Counter(namespace=len(_network_namespaces(folder))),
                "files": count(_files(folder)),
                "fds of the daemon": count(open_files(pid)),
            }
        )

    def differences(self, before: Snapshot) -> str:
        """A line for each object whose count changed since `before`; empty without changes."""
        lines = []
        for room, after in self.counts.items():
            earlier = before.counts.get(room, Counter())
            for name in sorted(after.keys() | earlier.keys()):
                if after[name] != earlier[name]:
                    lines.append(
                        f"{room}: {after[name] - earlier[name]:+d} {name} ({earlier[name]} → {after[name]})"
                    )
        return "\n".join(lines)


def _blank(name: str) -> str:
    """Replaces ids (12 hex digits or more) and numbers, which differ between equal pods."""
    return re.sub(r"\d+", "N", re.sub(r"[0-9a-f]{12,}", "ID", name))


def _in_network_of(pid: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in the network namespace of `pid`."""
    enter = ["nsenter", f"--target={pid}", "--net", "--"]
    return subprocess.run([*enter, *command], capture_output=True, text=True, check=False)


def _links(pid: int, bridge: str) -> list[str]:
    done = _in_network_of(pid, "ip", "-j", "link", "show", "master", bridge)
    return ["link" for _ in json.loads(done.stdout)] if done.returncode == 0 and done.stdout.strip() else []


def _nftables(pid: int, bridge: str) -> list[str]:
    """The lines of all tables with the bridge in their name or rules."""
    done = _in_network_of(pid, "nft", "list", "ruleset")
    tables = re.split(r"^(?=table )", done.stdout, flags=re.MULTILINE)
    return [
        line.strip()
        for table in tables
        if bridge in table
        for line in re.split(r"[\n,]", table)
        if line.strip()
    ]


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return (PROC / str(pid) / "comm").read_text().strip()
    return "gone"


def _network_namespaces(folder: Path) -> set[str]:
    found = set()
    for pid in processes_below(folder):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
    return found


def _files(folder: Path) -> Iterator[str]:
    """All files except those kept for later containers: prepared snapshots, and compiled policies."""
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".spare-") and name != "policies"]
        yield from (os.path.join(path, name) for name in (*folders, *files))

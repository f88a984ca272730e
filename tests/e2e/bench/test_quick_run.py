"""The benchmark itself, on a peer and in a few samples: figures come out and nothing stays behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cgroups import hierarchies
from harness.tools import ROOT


def bench_traces() -> set[str]:
    """Bridges, cgroups and temporary folders with the benchmark's names."""
    links = subprocess.run(
        ["ip", "-br", "link"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    found = {line.split()[0] for line in links if line.startswith("pfbench")}
    groups = (group for top in hierarchies() for group in top.glob("phantom-bench-*"))
    return found | {str(path) for path in (*groups, *Path("/tmp").glob("phantom-bench-*"))}


@pytest.mark.root
@pytest.mark.long
def test_a_quick_run_measures_a_peer_and_leaves_nothing(tmp_path: Path) -> None:
    before = bench_traces()
    command = [
        sys.executable,
        "-m",
        "bench",
        "--quick",
        "--only",
        "containerd + crun",
        "--results",
        str(tmp_path),
    ]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)

    (result,) = tmp_path.glob("*.json")
    measured = json.loads(result.read_text())["results"]["containerd + crun"]
    assert {"pod", "ExecSync", "teardown"} <= measured["summaries"].keys()
    assert measured["cycles_per_second"][0] > 0
    assert measured["memory"]["processes"] == 2, "a shim and a pause container for each pod"
    assert result.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert bench_traces() <= before

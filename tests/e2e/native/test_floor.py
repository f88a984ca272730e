"""The bench's measure of the kernel's own share does what it says, and cleans up."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from bench.stages import build_floor
from tests.e2e.native.bed import mounts_of

pytestmark = [pytest.mark.root, pytest.mark.kernel("overlayfs")]


def test_floor(tmp_path: Path, rootfs: Path) -> None:
    before = mounts_of(os.getpid())
    build_floor(tmp_path / "floor")
    command = [str(tmp_path / "floor"), "20", str(rootfs), "/bin/true"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert found["iterations"] == 20
    for name in ("start_us", "cycle_us"):
        assert 0 < found[name]["p50"] <= found[name]["p95"]
    assert found["start_us"]["p50"] < found["cycle_us"]["p50"]
    assert mounts_of(os.getpid()) == before


def test_a_program_that_fails_ends_it(tmp_path: Path, rootfs: Path) -> None:
    build_floor(tmp_path / "floor")
    for program in ("/bin/false", "/bin/nothing"):
        command = [str(tmp_path / "floor"), "1", str(rootfs), program]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 1

"""What an idle fragment costs, alone and after work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.native import raw
from tests.e2e.native.bed import Bed, start
from tests.e2e.native.raw import Fragment

pytestmark = pytest.mark.root


def pss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise AssertionError


def test_twenty_idle_fragments(bed: Bed) -> None:
    fragments = [bed.fragment() for _ in range(20)]
    sizes = [pss_kib(fragment.pid) for fragment in fragments]
    assert max(sizes) <= 100, sizes


def test_work_leaves_no_memory_behind(bed: Bed) -> None:
    fragments = [bed.fragment() for _ in range(20)]
    busy: Fragment = fragments[0]
    for number in range(20):
        bed.run(busy, bed.shell("seq 20000"), f"c{number}")
    assert pss_kib(busy.pid) <= 130


def test_idle_containers_cost_little(bed: Bed) -> None:
    fragments = [bed.fragment() for _ in range(20)]
    for fragment in fragments:
        start(fragment, "c", bed.shell("echo started; exec sleep 1000"))
    raw.eventually(lambda: len(bed.log_lines()) == 20)
    sizes = [pss_kib(fragment.pid) for fragment in fragments]
    assert max(sizes) <= 130, sizes


def test_spawned_fragments_are_sealed(bed: Bed, fragment: Fragment) -> None:
    """What a container could reach through /proc/PID/exe cannot be written (CVE-2019-5736)."""
    exe = Path(f"/proc/{fragment.pid}/exe")
    assert "memfd:fragment" in str(exe.readlink())
    with pytest.raises(OSError):
        exe.open("r+b")

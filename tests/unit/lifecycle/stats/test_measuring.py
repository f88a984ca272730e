"""Rates, sums and which cgroup is a pod's own."""

from __future__ import annotations

import pytest

from phantom_cri.fragments import ProcStat
from phantom_cri.lifecycle.stats.measuring import has_own_cgroup
from phantom_cri.lifecycle.stats.rates import LONGEST_NS, Rates
from phantom_cri.lifecycle.stats.sums import add, of_process, time_only
from phantom_cri.model import SandboxConfig, SandboxMetadata, SandboxRecord
from phantom_cri.usage import CgroupUsage, CpuUsage, IoUsage, MemoryUsage, Pressure, Stalls, TaskUsage

SECOND = 1_000_000_000
UID = "0b1c-22"


def test_rates() -> None:
    rates = Rates()
    assert rates.rate("c", 10 * SECOND, 500) is None, "there is no interval yet"
    assert rates.rate("c", 10 * SECOND + 5, 600) is None, "too short a one"
    assert rates.rate("c", 12 * SECOND, 500 + SECOND) == SECOND // 2
    assert rates.rate("c", 12 * SECOND + 1, 9 * SECOND) == SECOND // 2
    assert rates.rate("c", 14 * SECOND, 100) == 0, "it never runs backwards"
    assert rates.rate("c", 15 * SECOND + LONGEST_NS, 100) is None, "too old to say anything of now"
    assert rates.rate("c", 20 * SECOND, 100) is None, "the clock was set back"
    assert rates.rate("c", 22 * SECOND, 100 + SECOND) == SECOND // 2
    assert rates.rate("other", SECOND, 1) is None and len(rates) == 2
    rates.keep({"c"})
    assert len(rates) == 1


@pytest.mark.parametrize(
    ("parent", "uid", "own"),
    [
        (f"/kubepods/burstable/pod{UID}", UID, True),
        (f"/kubepods/burstable/pod{UID}/", UID, True),
        ("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0b1c_22.slice", UID, True),
        ("/kubepods-pod0b1c_22.slice", UID, True),
        ("/kubepods/burstable", UID, False),
        ("/kubepods/podother", UID, False),
        ("/kubepods/pod", "", False),
        ("/phantom", UID, False),
    ],
)
def test_whose_cgroup_a_parent_is(parent: str, uid: str, own: bool) -> None:
    config = SandboxConfig(metadata=SandboxMetadata(name="p", uid=uid))
    assert has_own_cgroup(SandboxRecord(id="1", config=config, created_at=1, cgroup_parent=parent)) is own


def usage(timestamp: int, factor: int) -> CgroupUsage:
    stalls = Stalls(Pressure(1), Pressure(1))
    return CgroupUsage(
        timestamp=timestamp,
        cpu=CpuUsage(10 * factor, 6 * factor, 4 * factor, stalls=stalls),
        memory=MemoryUsage(
            5 * factor, 3 * factor, rss=2 * factor, swap=factor, page_faults=7 * factor, limit=99
        ),
        io=IoUsage((), stalls),
        tasks=TaskUsage(factor),
    )


def test_sums() -> None:
    both = add(usage(5, 1), usage(9, 10))
    assert (both.timestamp, both.cpu, both.tasks.tasks) == (9, CpuUsage(110, 66, 44), 11)
    assert both.memory == MemoryUsage(55, 33, rss=22, swap=11, page_faults=77)
    assert both.io == (None, None), "pressure does not add up"
    ended = add(usage(5, 1), time_only(usage(9, 10)))
    assert ended.cpu.usage_ns == 110 and ended.tasks.tasks == 1
    assert ended.memory == MemoryUsage(5, 3, rss=2, swap=1, page_faults=77)
    assert add(usage(5, 1)._replace(memory=None), usage(5, 1)).memory is None


def test_a_process_counts_like_a_cgroup() -> None:
    found = of_process(ProcStat(1, 30, 12, 4096, 5, 1, 2))
    assert found.cpu == CpuUsage(42, 30, 12) and found.tasks.tasks == 2
    assert found.memory == MemoryUsage(4096, 4096, rss=4096, page_faults=5, major_page_faults=1)

from __future__ import annotations

import pytest

from phantom_cri.cgroups.limits import v2_settings
from phantom_cri.cgroups.slices import bit_mask, properties, slice_of, slice_path
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import Resources

NO_LIMIT = (1 << 64) - 1
ALL = frozenset({"cpu", "cpuset", "io", "memory", "pids", "hugetlb"})


@pytest.mark.parametrize(
    "parent",
    [
        "", "/", "/kubepods/pod1", "a.scope", "-.slice", "a-.slice", "a--b.slice", ".slice", "a b.slice",
        "a\n.slice", "/x.slice/..", "x" * 250 + ".slice",
    ],
)  # fmt: skip
def test_what_is_no_slice_is_refused(parent: str) -> None:
    with pytest.raises(InvalidArgument, match="cgroup parent"):
        slice_of(parent)


def test_a_slice_by_name_or_path() -> None:
    assert slice_of("/kubepods.slice/kubepods-pod1_2.slice") == slice_of("kubepods-pod1_2.slice")
    assert slice_path("a-b-c.slice") == "/a.slice/a-b.slice/a-b-c.slice"
    assert slice_path("a.slice") == "/a.slice"


def told(resources: Resources) -> dict[str, object]:
    settings = v2_settings(resources, fresh=False, controllers=ALL)
    return {one.name: one.value for one in properties(settings)}


def test_limits_as_properties() -> None:
    assert told(
        Resources(
            cpu_shares=1024,
            cpu_period=100_000,
            cpu_quota=50_000,
            memory_limit=1 << 20,
            memory_swap_limit=3 << 20,
            pids_limit=100,
            cpuset_cpus="0-1,9",
            cpuset_mems="0",
            unified={"memory.high": "900000", "memory.min": "5", "io.weight": "default 50"},
        )
    ) == {
        "CPUWeight": 100,
        "CPUQuotaPeriodUSec": 100_000,
        "CPUQuotaPerSecUSec": 500_000,
        "MemoryMax": 1 << 20,
        "MemorySwapMax": 2 << 20,
        "MemoryHigh": 900_000,
        "MemoryMin": 5,
        "TasksMax": 100,
        "AllowedCPUs": b"\x03\x02",
        "AllowedMemoryNodes": b"\x01",
        "IOWeight": 50,
    }


def test_what_has_no_limit() -> None:
    assert told(Resources(memory_limit=-1, cpu_quota=-1)) == {
        "MemoryMax": NO_LIMIT,
        "MemorySwapMax": NO_LIMIT,
        "CPUQuotaPerSecUSec": NO_LIMIT,
        "CPUQuotaPeriodUSec": 100_000,
    }


def test_a_quota_is_told_in_whole_percents_and_never_less() -> None:
    assert told(Resources(cpu_quota=33_333, cpu_period=100_000))["CPUQuotaPerSecUSec"] == 340_000
    assert told(Resources(cpu_quota=1_000, cpu_period=1_000_000))["CPUQuotaPerSecUSec"] == 10_000


def test_files_without_a_property_are_not_told() -> None:
    assert (
        told(Resources(unified={"io.max": "8:0 rbps=1", "memory.oom.group": "1", "io.weight": "8:0 5"})) == {}
    )


def test_bit_masks() -> None:
    assert bit_mask("0") == b"\x01"
    assert bit_mask("8") == b"\x00\x01"
    assert bit_mask("0-15") == b"\xff\xff"

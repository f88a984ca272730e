from __future__ import annotations

import pytest

from phantom_cri.cgroups.limits import cpu_weight, v1_settings, v2_settings
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import HugepageLimit, Resources

ALL = frozenset({"cpu", "cpuset", "memory", "pids", "hugetlb"})


def written_v1(resources: Resources, *, fresh: bool = False) -> list[tuple[str, str]]:
    return [(s.file, s.value) for s in v1_settings(resources, fresh=fresh)]


def written_v2(resources: Resources, *, fresh: bool = False) -> list[tuple[str, str]]:
    return [(s.file, s.value) for s in v2_settings(resources, fresh=fresh, controllers=ALL)]


def test_unified_keys_are_refused_on_v1() -> None:
    with pytest.raises(InvalidArgument, match=r"unified\['memory.high'\]"):
        v1_settings(Resources(unified={"memory.high": "1"}), fresh=True)


def test_swap_without_memory_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="memory_swap_limit_in_bytes 5"):
        v1_settings(Resources(memory_swap_limit=5), fresh=True)


@pytest.mark.parametrize(
    "shares, weight", [(2, 1), (1, 1), (3, 2), (512, 59), (1024, 100), (2048, 174), (262144, 10000)]
)
def test_cpu_weight(shares: int, weight: int) -> None:
    assert cpu_weight(shares) == weight


def test_cpu_weight_never_falls() -> None:
    weights = [cpu_weight(shares) for shares in range(2, 262_145, 97)]
    assert weights == sorted(weights)
    assert weights[0] >= 1 and weights[-1] <= 10_000


def test_nothing_set_writes_nothing() -> None:
    assert written_v1(Resources()) == written_v2(Resources()) == []


def test_v1_memory_with_and_without_swap() -> None:
    assert written_v1(Resources(memory_limit=100)) == [
        ("memory.limit_in_bytes", "100"),
        ("memory.memsw.limit_in_bytes", "100"),
    ]
    assert written_v1(Resources(memory_limit=100, memory_swap_limit=150))[1][1] == "150"
    assert written_v1(Resources(memory_limit=100, memory_swap_limit=-1))[1][1] == "-1"


def test_v2_memory_unlimited() -> None:
    assert written_v2(Resources(memory_limit=-1)) == [("memory.max", "max"), ("memory.swap.max", "max")]


def test_an_update_writes_what_equals_a_default() -> None:
    same = Resources(cpu_shares=1024, cpu_period=100_000, cpu_quota=-1)
    assert written_v1(same, fresh=True) == []
    assert written_v1(same) == [
        ("cpu.shares", "1024"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "-1"),
    ]


def test_hugepages() -> None:
    resources = Resources(hugepage_limits=(HugepageLimit("2MB", 4 << 20),))
    assert written_v1(resources) == [("hugetlb.2MB.limit_in_bytes", "4194304")]
    assert written_v2(resources) == [("hugetlb.2MB.max", "4194304")]

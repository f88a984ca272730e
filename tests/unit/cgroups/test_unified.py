from __future__ import annotations

import pytest

from phantom_cri.cgroups.unified import check_unified, devices, lines, restored
from phantom_cri.errors import InvalidArgument

ALL = frozenset({"cpu", "cpuset", "io", "memory", "pids", "hugetlb"})


@pytest.mark.parametrize(
    "key",
    [
        "cgroup.procs",
        "cgroup.kill",
        "cgroup.subtree_control",
        "memory.reclaim",
        "memory.pressure",
        "memory.current",
        "../memory.max",
        "memory.max/..",
        "x/memory.max",
        "/memory.max",
        "memory.max\n",
        "memory",
        "",
        "hugetlb.2MB.current",
        "hugetlb.2.max",
        "MEMORY.max",
    ],
)
def test_what_is_no_limit_is_refused_by_name(key: str) -> None:
    with pytest.raises(InvalidArgument, match=r"linux\.resources\.unified\["):
        check_unified(key, "1", ALL)


def test_a_controller_that_is_not_there() -> None:
    with pytest.raises(InvalidArgument, match=r"rdma\.max.*there are: cpu, cpuset"):
        check_unified("rdma.max", "mlx5_0 hca_handle=2", ALL)


@pytest.mark.parametrize(
    "key, value",
    [
        ("memory.high", "-1"),
        ("memory.high", "1G"),
        ("memory.high", "1\n2"),
        ("memory.high", ""),
        ("memory.high", "\uff11"),
        ("memory.oom.group", "2"),
        ("cpu.weight", "0"),
        ("cpu.weight", "10001"),
        ("cpu.weight.nice", "20"),
        ("cpu.max", "max max"),
        ("io.max", "8:0"),
        ("io.max", "sda rbps=1"),
        ("io.max", "8:0 rbps=1\nnonsense"),
        ("io.max", ""),
        ("io.weight", "8:0 heavy"),
        ("hugetlb.2MB.max", "many"),
        ("cpuset.cpus.partition", "mine"),
    ],
)
def test_a_value_that_the_file_does_not_take_is_named(key: str, value: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"unified\['{key}'\]"):
        check_unified(key, value, ALL)


@pytest.mark.parametrize(
    "key, value, controller",
    [
        ("memory.high", "max", "memory"),
        ("memory.swap.max", "0", "memory"),
        ("memory.oom.group", "1", "memory"),
        ("io.max", "8:0 rbps=1 wiops=max\n8:16 rbps=2\n", "io"),
        ("io.weight", "default 50\n8:0 200", "io"),
        ("cpu.max", "50000 100000", "cpu"),
        ("cpu.weight.nice", "-20", "cpu"),
        ("hugetlb.1GB.max", "1073741824", "hugetlb"),
        ("cpuset.cpus", "0-1,3", "cpuset"),
    ],
)
def test_limits_with_their_values(key: str, value: str, controller: str) -> None:
    assert check_unified(key, value, ALL) == controller


def test_one_device_a_write_and_one_value_a_file() -> None:
    assert lines("io.max", "8:0 rbps=1\n8:16 rbps=2\n") == ["8:0 rbps=1", "8:16 rbps=2"]
    assert lines("memory.high", "5\n") == ["5"]


def test_a_device_that_had_no_limit_gets_none_again() -> None:
    assert restored("io.max", "8:0 rbps=1\n8:16 rbps=2", "8:0 rbps=9 wbps=max") == (
        "8:0 rbps=9 wbps=max\n8:16 rbps=max wbps=max riops=max wiops=max"
    )
    assert restored("io.weight", "8:0 200", "default 100") == "default 100\n8:0 default"
    assert restored("memory.high", "1", "max") == "max"


def test_devices_spoken_of() -> None:
    assert devices([("io.weight", "default 5\n8:0 6"), ("io.max", "9:1 rbps=1"), ("cpu.max", "1 2")]) == {
        "8:0",
        "9:1",
    }

from __future__ import annotations

from pathlib import Path

import pytest

from phantom_cri.cgroups.checks import check_host, check_ranges, page_sizes
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import HugepageLimit, Resources


@pytest.mark.parametrize(
    "resources, named",
    [
        (Resources(cpu_period=999), "cpu_period 999"),
        (Resources(cpu_period=1_000_001), "cpu_period 1000001"),
        (Resources(cpu_quota=-2), "cpu_quota -2"),
        (Resources(cpu_quota=999), "cpu_quota 999"),
        (Resources(cpu_quota=1 << 44), f"cpu_quota {1 << 44}"),
    ],
)
def test_a_range_that_the_scheduler_has_not(resources: Resources, named: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"linux\.resources\.{named}:"):
        check_ranges(resources)


@pytest.mark.parametrize(
    "resources, named",
    [
        (Resources(cpuset_cpus="nonsense"), "cpuset_cpus 'nonsense'"),
        (Resources(cpuset_cpus="0-"), "cpuset_cpus '0-'"),
        (Resources(cpuset_cpus="3-1"), "cpuset_cpus '3-1'"),
        (Resources(cpuset_cpus="0\n1"), "cpuset_cpus"),
        (Resources(cpuset_cpus="4"), "cpuset_cpus '4': this host has 0-3"),
        (Resources(cpuset_mems="0-1"), "cpuset_mems '0-1': this host has 0"),
        (Resources(hugepage_limits=(HugepageLimit("3MB", 1),)), r"hugepage_limits\[3MB\] 1"),
        (Resources(unified={"io.max": "999:999 rbps=1"}), "block device 999:999"),
    ],
)
def test_what_this_host_has_not(resources: Resources, named: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"linux\.resources.*{named}|{named}"):
        check_host(resources, "0-3", "0")


def test_what_this_host_has() -> None:
    check_host(Resources(cpuset_cpus="0-1,3", cpuset_mems="0"), "0-3", "0")
    check_host(Resources(cpuset_cpus="900"), "", "")  # nobody knows: the kernel will say
    check_host(Resources(hugepage_limits=(HugepageLimit("3MB", 0),)), "0-3", "0")
    check_ranges(Resources(cpu_period=100_000, cpu_quota=-1))


def test_page_sizes(tmp_path: Path) -> None:
    for name in ("hugepages-64kB", "hugepages-2048kB", "hugepages-1048576kB"):
        (tmp_path / name).mkdir()
    assert page_sizes(str(tmp_path)) == {"64KB", "2MB", "1GB"}
    assert page_sizes(str(tmp_path / "none")) == frozenset()

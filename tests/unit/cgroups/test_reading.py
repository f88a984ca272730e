"""Texts as kernels wrote them: v1 of Linux 6.18 and 4.19, v2 of 6.12."""

# ruff: noqa: E501  (the kernels' lines as they are)
from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from phantom_cri.cgroups import reading
from phantom_cri.cgroups.tree import Tree
from phantom_cri.cgroups.usage import optional, v1_usage, v2_usage
from phantom_cri.usage import DeviceIo, Pressure, Stalls

V1_MEMORY = """cache 9445376
rss 17858560
mapped_file 7577600
pgfault 135422
inactive_file 28672
hierarchical_memory_limit 9223372036854771712
hierarchical_memsw_limit 9223372036854771712
total_cache 2743222272
total_rss 931770368
total_mapped_file 507367424
total_swap 12288
total_pgfault 221514585
total_pgmajfault 42074
total_inactive_file 1107980288
"""
V2_MEMORY = """anon 1638400
file 5242880
kernel 409600
kernel_stack 16384
file_mapped 1048576
inactive_file 4194304
pgfault 1207
pgmajfault 3
"""
PRESSURE = "some avg10=1.48 avg60=0.97 avg300=1.13 total=177470684\nfull avg10=0.03 avg60=0.13 avg300=0.23 total=99111204\n"


def test_limits() -> None:
    assert [reading.limit(text) for text in ("max\n", "", "9223372036854771712\n", "67108864\n")] == [
        0,
        0,
        0,
        1 << 26,
    ]
    assert reading.limit("9223372036854710272") == 0, "PAGE_COUNTER_MAX with pages of 64 KiB"


def test_pressure() -> None:
    assert reading.stalls(PRESSURE) == Stalls(
        Pressure(177470684000, 1.48, 0.97, 1.13), Pressure(99111204000, 0.03, 0.13, 0.23)
    )
    some = PRESSURE.splitlines()[0]
    assert reading.stalls(some) == Stalls(Pressure(177470684000, 1.48, 0.97, 1.13), Pressure())
    assert reading.stalls("") is None


def test_v1_memory_counts_the_whole_subtree() -> None:
    memory = reading.v1_memory(2_000_000_000, reading.flat_keyed(V1_MEMORY))
    assert (memory.rss, memory.cache, memory.mapped_file) == (931770368, 2743222272, 507367424)
    assert memory.working_set == 2_000_000_000 - 1107980288
    assert (memory.limit, memory.swap_limit, memory.swap) == (0, 0, 12288)
    assert (memory.page_faults, memory.major_page_faults) == (221514585, 42074)
    assert reading.v1_memory(5, reading.flat_keyed(V1_MEMORY)).working_set == 0, "never below nothing"


def test_v1_without_swap_accounting_has_no_limit_of_both() -> None:
    stat = reading.flat_keyed(V1_MEMORY)
    del stat["hierarchical_memsw_limit"]
    assert reading.v1_memory(1, stat).swap_limit is None


def test_v2_memory() -> None:
    memory = reading.v2_memory(7_000_000, reading.flat_keyed(V2_MEMORY))
    assert (memory.usage, memory.working_set) == (7_000_000, 7_000_000 - 4194304)
    assert (memory.rss, memory.cache, memory.mapped_file, memory.kernel) == (
        1638400,
        5242880,
        1048576,
        409600,
    )
    older = reading.flat_keyed("kernel_stack 10\npagetables 20\npercpu 30\nslab 40\n")
    assert reading.v2_memory(1, older).kernel == 100


def test_v2_io() -> None:
    text = "8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n8:0\n253:0 rbytes=4096 future=1\n"
    assert reading.v2_io(text) == (
        DeviceIo(8, 16, 1459200, 314773504, 192, 353),
        DeviceIo(253, 0, 4096, 0, 0, 0),
    )
    assert reading.v2_io("") == ()


def test_v1_io() -> None:
    sizes = "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 4096\n8:0 Async 8192\n8:0 Discard 0\n8:0 Total 12288\nTotal 12288\n"
    counts = "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\n252:0 Read 5\nTotal 8\n"
    assert reading.v1_io(sizes, counts) == (DeviceIo(252, 0, 0, 0, 5, 0), DeviceIo(8, 0, 4096, 8192, 1, 2))
    assert reading.v1_io("Total 0\n", "Total 0\n") == ()


def folder(root: Path, name: str, files: dict[str, str]) -> Tree:
    place = root / name / "c"
    place.mkdir(parents=True)
    for file, text in files.items():
        (place / file).write_text(text)
    return Tree(str(root / name))


V2_FILES = {
    "cpu.stat": "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnr_periods 9\nnr_throttled 4\nthrottled_usec 70\n",
    "cpu.pressure": PRESSURE,
    "io.pressure": PRESSURE,
    "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n",
    "memory.current": "7000000\n",
    "memory.stat": V2_MEMORY,
    "memory.max": "8000000\n",
    "memory.low": "0\n",
    "memory.events": "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\n",
    "memory.peak": "7500000\n",
    "memory.pressure": PRESSURE,
    "memory.swap.current": "4096\n",
    "memory.swap.max": "1000000\n",
    "pids.current": "3\n",
    "pids.max": "max\n",
}
ALL = frozenset({"cpu", "io", "memory", "pids"})


def test_v2_usage(tmp_path: Path) -> None:
    usage = v2_usage(folder(tmp_path, "v2", V2_FILES), "c", ALL, True)
    assert usage.cpu[:6] == (5_000_000, 3_000_000, 2_000_000, 9, 4, 70_000)
    assert usage.cpu.stalls == usage.io.stalls == reading.stalls(PRESSURE)
    assert usage.io.devices == (DeviceIo(8, 0, 1, 2, 3, 4),)
    assert usage.tasks[:2] == (3, 0)
    memory = usage.memory
    assert memory is not None
    assert (memory.limit, memory.swap_limit, memory.swap) == (8_000_000, 9_000_000, 4096)
    assert (memory.most, memory.limit_hits, memory.oom_kills) == (7_500_000, 12, 1)


@pytest.mark.parametrize(("swap", "memory_max", "both"), [("max", "5", 0), ("7", "max", 0), ("0", "5", 5)])
def test_v2_tells_both_limits_together(tmp_path: Path, swap: str, memory_max: str, both: int) -> None:
    files = {**V2_FILES, "memory.swap.max": f"{swap}\n", "memory.max": f"{memory_max}\n"}
    memory = v2_usage(folder(tmp_path, "v2", files), "c", ALL, False).memory
    assert memory is not None and memory.swap_limit == both


def test_what_v2_does_not_keep_is_absent(tmp_path: Path) -> None:
    lacking = (
        "memory.peak",
        "memory.swap.current",
        "memory.swap.max",
        "cpu.pressure",
        "io.pressure",
        "io.stat",
    )
    files = {name: text for name, text in V2_FILES.items() if name not in lacking}
    usage = v2_usage(folder(tmp_path, "v2", files), "c", ALL - {"io", "pids"}, True)
    assert usage.memory is not None
    assert usage.memory.most is None and usage.memory.swap_limit is None and usage.memory.swap == 0
    assert usage.cpu.stalls is None and usage.io == (None, None) and usage.tasks.tasks == 0
    bare = v2_usage(folder(tmp_path, "bare", {"cpu.stat": "usage_usec 1\n"}), "c", frozenset(), True)
    assert bare.memory is None and bare.cpu.usage_ns == 1000


V1_FILES = {
    "cpuacct": {
        "cpuacct.usage": "987654321\n",
        "cpuacct.usage_user": "900000000\n",
        "cpuacct.usage_sys": "87654321\n",
    },
    "cpu": {
        "cpu.stat": "nr_periods 40\nnr_throttled 9\nthrottled_time 123456789\nnr_bursts 0\nburst_time 0\n"
    },
    "memory": {
        "memory.stat": V1_MEMORY,
        "memory.usage_in_bytes": "2000000000\n",
        "memory.max_usage_in_bytes": "2100000000\n",
        "memory.failcnt": "3\n",
        "memory.memsw.failcnt": "4\n",
        "memory.kmem.usage_in_bytes": "55\n",
        "memory.soft_limit_in_bytes": "9223372036854771712\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    },
    "blkio": {
        "blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 0\nTotal 4096\n",
        "blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 0\nTotal 1\n",
    },
    "pids": {"pids.current": "6\n", "pids.max": "100\n"},
}


def test_v1_usage_has_no_pressure_of_its_own(tmp_path: Path) -> None:
    trees = {name: folder(tmp_path, name, files) for name, files in V1_FILES.items()}
    usage = v1_usage(trees, None, "c", True)
    assert usage.cpu == (987654321, 900000000, 87654321, 40, 9, 123456789, None)
    assert usage.io == ((DeviceIo(8, 0, 4096, 0, 1, 0),), None) and usage.tasks[:2] == (6, 100)
    memory = usage.memory
    assert memory is not None and memory.stalls is None
    assert (memory.most, memory.limit_hits, memory.oom_kills) == (2_100_000_000, 7, 2)
    assert (memory.kernel, memory.soft_limit) == (55, 0)


def test_hybrid_has_the_pressure_of_its_v2_tree(tmp_path: Path) -> None:
    unified = folder(tmp_path, "unified", {f"{name}.pressure": PRESSURE for name in ("cpu", "memory", "io")})
    usage = v1_usage({}, unified, "c", False)
    assert usage.cpu.stalls == usage.io.stalls == reading.stalls(PRESSURE) and usage.memory is None


def test_a_refusal_that_is_not_for_want_of_the_file_is_an_error(tmp_path: Path) -> None:
    tree = folder(tmp_path, "v2", {})
    os.mkdir(tmp_path / "v2/c/odd")
    assert optional(tree, "c", "absent") == ""
    with pytest.raises(OSError) as caught:
        optional(tree, "c", "odd")
    assert caught.value.errno == errno.EISDIR

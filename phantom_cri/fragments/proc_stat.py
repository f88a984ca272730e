"""Resource usage of one process, from /proc/PID/stat (proc_pid_stat(5))."""

from __future__ import annotations

import os
from typing import NamedTuple

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class ProcStat(NamedTuple):
    """Nanoseconds, bytes, counts; `start_time` (ticks since boot) detects a reused pid."""

    start_time: int
    user_ns: int
    system_ns: int
    rss: int
    page_faults: int
    major_page_faults: int
    threads: int


def read_proc_stat(pid: int) -> ProcStat:
    """Raises OSError for a process that is gone."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return parse_proc_stat(file.read())


def parse_proc_stat(stat: bytes) -> ProcStat:
    """The name in the second field may have any byte, so fields are counted from the last parenthesis."""
    fields = stat[stat.rindex(b")") + 2 :].split()  # the first of them is field 3

    def field(number: int) -> int:
        return int(fields[number - 3])

    return ProcStat(
        start_time=field(22),
        user_ns=field(14) * _TICK_NS,
        system_ns=field(15) * _TICK_NS,
        rss=field(24) * _PAGE,
        page_faults=field(10),
        major_page_faults=field(12),
        threads=field(20),
    )

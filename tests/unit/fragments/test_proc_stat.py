from __future__ import annotations

import os

import pytest

from phantom_cri.fragments import read_proc_stat
from phantom_cri.fragments.proc_stat import parse_proc_stat

STAT = (
    b"30233 (a) R 9 (b)) S 30190 30190 19211 0 -1 4194304 101 0 7 0 250 150 0 0 20 0 3 0 1308587 3133440 413 "
    b"18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0"
)


def test_the_name_may_hold_anything() -> None:
    proc_stat = parse_proc_stat(STAT)
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    assert (proc_stat.user_ns, proc_stat.system_ns) == (250 * tick, 150 * tick)
    assert (proc_stat.page_faults, proc_stat.major_page_faults, proc_stat.threads) == (101, 7, 3)
    assert (proc_stat.start_time, proc_stat.rss) == (1308587, 413 * os.sysconf("SC_PAGE_SIZE"))


def test_this_process_and_one_that_is_gone() -> None:
    assert read_proc_stat(os.getpid()).rss > 1 << 20
    with pytest.raises(OSError):
        read_proc_stat(1 << 30)

from __future__ import annotations

from phantom_cri.model import HugepageLimit, Resources
from phantom_cri.requests import with_changes


def test_a_change_keeps_what_it_does_not_set() -> None:
    current = Resources(cpu_shares=512, memory_limit=100, unified={"memory.high": "5"})
    merged = with_changes(current, Resources(memory_limit=200, unified={"memory.low": "1"}))
    assert merged == Resources(
        cpu_shares=512, memory_limit=200, unified={"memory.high": "5", "memory.low": "1"}
    )


def test_swap_stays_as_much_as_it_was() -> None:
    assert with_changes(Resources(memory_limit=100, memory_swap_limit=130), Resources(memory_limit=50)) == (
        Resources(memory_limit=50, memory_swap_limit=80)
    )
    assert with_changes(Resources(memory_limit=100, memory_swap_limit=100), Resources(memory_limit=900)) == (
        Resources(memory_limit=900, memory_swap_limit=900)
    )
    assert with_changes(Resources(memory_limit=100, memory_swap_limit=-1), Resources(memory_limit=50)) == (
        Resources(memory_limit=50, memory_swap_limit=-1)
    )
    asked = Resources(memory_limit=50, memory_swap_limit=60)
    assert with_changes(Resources(memory_limit=100, memory_swap_limit=130), asked) == asked


def test_huge_pages_change_by_size() -> None:
    two, one = HugepageLimit("2MB", 4 << 20), HugepageLimit("1GB", 0)
    merged = with_changes(
        Resources(hugepage_limits=(two, one)), Resources(hugepage_limits=(HugepageLimit("2MB", 0),))
    )
    assert merged.hugepage_limits == (HugepageLimit("2MB", 0), one)


def test_no_change_and_a_limit_taken_away() -> None:
    current = Resources(cpu_quota=50_000, memory_limit=1 << 30)
    assert with_changes(current, Resources()) == current
    assert with_changes(current, Resources(cpu_quota=-1)) == Resources(cpu_quota=-1, memory_limit=1 << 30)

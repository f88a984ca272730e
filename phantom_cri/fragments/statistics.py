"""What the daemon has open towards fragments, as counts of a moment."""

from __future__ import annotations

from collections.abc import Iterable

from phantom_cri.codec import Record


class FragmentStatistics(Record, frozen=True):
    """`requests`: without an answer yet; `unsent`: packets that a fragment has not taken yet; `attached`:
    clients of a container's output; `execs`: whose end somebody waits for; `early_exits`: ends of containers
    that were told before their start was recorded.
    """

    connections: int
    requests: int
    unsent: int
    attached: int
    execs: int
    early_exits: int


def summed(each: Iterable[FragmentStatistics]) -> FragmentStatistics:
    all_of_them = list(each)
    fields = FragmentStatistics.__struct_fields__
    return FragmentStatistics(*[sum(getattr(one, field) for one in all_of_them) for field in fields])

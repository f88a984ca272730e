"""Current counts of requests, clients and execs of fragments."""

from __future__ import annotations

from collections.abc import Iterable

from phantom_cri.codec import Record


class FragmentStatistics(Record, frozen=True):
    """`requests`: not answered yet; `unsent`: packets not sent yet; `attached`: clients of a container's
    output; `execs`: whose exit is being waited for; `early_exits`: exits of containers that were reported
    before their start was recorded.
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

"""Current counts of what this package holds in memory."""

from __future__ import annotations

from phantom_cri.codec import Record
from phantom_cri.policy.book import PolicyBook
from phantom_cri.policy.kept import KeptPolicies
from phantom_cri.policy.selinux import Selinux


class PolicyStatistics(Record, frozen=True):
    """`loaded`: policies for new containers; `kept`: compiled ones, for execs and later daemons;
    `selinux_levels`: reserved by pods.
    """

    loaded: int
    kept: int
    selinux_levels: int


def statistics(book: PolicyBook, kept: KeptPolicies, selinux: Selinux) -> PolicyStatistics:
    return PolicyStatistics(len(list(book)), len(kept), len(selinux.held_levels))

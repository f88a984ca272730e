"""What every room holds at a moment, as counts: for `crictl info`, and for whoever looks for leaks."""

from __future__ import annotations

from phantom_cri import policy
from phantom_cri.cgroups import CgroupStatistics
from phantom_cri.codec import Record
from phantom_cri.fragments import FragmentStatistics, summed
from phantom_cri.images import ImageStatistics
from phantom_cri.lifecycle.node import Node
from phantom_cri.lifecycle.records import RecordStatistics
from phantom_cri.network import NetworkStatistics
from phantom_cri.policy import PolicyStatistics
from phantom_cri.pools import PoolStatistics
from phantom_cri.streaming import StreamStatistics


class Statistics(Record, frozen=True):
    """By room. `fragments`: of pods, not of pools; `event_readers`: of GetContainerEvents;
    `unwritten_records`: changes on their way to where they outlive a reboot.
    """

    records: RecordStatistics
    event_readers: int
    unwritten_records: int
    fragments: FragmentStatistics
    pools: tuple[PoolStatistics, ...]
    images: ImageStatistics
    network: NetworkStatistics
    streaming: StreamStatistics
    cgroups: CgroupStatistics
    policy: PolicyStatistics


def statistics(node: Node) -> Statistics:
    shells = (pod.shell for pod in node.records.pods.values())
    return Statistics(
        records=node.records.statistics(),
        event_readers=node.events.readers,
        unwritten_records=node.durable.pending,
        fragments=summed(shell.statistics() for shell in shells if shell is not None),
        pools=tuple(pool.statistics() for pool in node.pools.values()),
        images=node.images.statistics(),
        network=node.network.statistics(),
        streaming=node.streams.statistics(),
        cgroups=node.cgroups.statistics(),
        policy=policy.statistics(node.policies, node.kept_policies, node.selinux),
    )

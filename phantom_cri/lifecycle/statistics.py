"""Counts of what each package holds: for `crictl info`, and for finding leaks."""

from __future__ import annotations

from phantom_cri import policy
from phantom_cri.cgroups import CgroupStatistics
from phantom_cri.codec import Record
from phantom_cri.fragments import FragmentStatistics, summed
from phantom_cri.images import ImageStatistics
from phantom_cri.lifecycle.records import RecordStatistics
from phantom_cri.lifecycle.runtime import Runtime
from phantom_cri.network import NetworkStatistics
from phantom_cri.policy import PolicyStatistics
from phantom_cri.pools import PoolStatistics
from phantom_cri.streaming import StreamStatistics


class Statistics(Record, frozen=True):
    """By package. `fragments`: of pods, not of pools; `event_readers`: of GetContainerEvents;
    `unwritten_records`: changes not written yet to the file that survives a reboot.
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


def statistics(runtime: Runtime) -> Statistics:
    node_fragments = (pod.fragment for pod in runtime.records.pods.values())
    return Statistics(
        records=runtime.records.statistics(),
        event_readers=runtime.events.readers,
        unwritten_records=runtime.durable.pending,
        fragments=summed(fragment.statistics() for fragment in node_fragments if fragment is not None),
        pools=tuple(pool.statistics() for pool in runtime.pools.values()),
        images=runtime.images.statistics(),
        network=runtime.network.statistics(),
        streaming=runtime.streams.statistics(),
        cgroups=runtime.cgroups.statistics(),
        policy=policy.statistics(runtime.policies, runtime.kept_policies, runtime.selinux),
    )

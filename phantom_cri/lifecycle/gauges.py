"""The gauges that no event moves: pools, pods and containers by state, containers by policy."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import get_args

from phantom_cri.lifecycle.confinement import containers_by_policy
from phantom_cri.lifecycle.node import Node
from phantom_cri.model import ContainerState, SandboxState

EVERY_SECONDS = 1.0


async def keep_current(node: Node) -> None:
    """Refresh them until cancelled."""
    while True:
        refresh(node)
        await asyncio.sleep(EVERY_SECONDS)


def refresh(node: Node) -> None:
    for pool in node.pools.values():
        report = pool.statistics()
        node.metrics.pool_fragments(
            report.name, {"warm": report.warm, "starting": report.starting, "claimed": report.claimed}
        )
    pods = Counter(pod.record.state for pod in node.records.pods.values())
    node.metrics.sandboxes({state: pods[state] for state in get_args(SandboxState)})
    containers = Counter(container.record.state for container in node.records.containers.values())
    node.metrics.records_durable(not node.durable.obstacle)
    node.metrics.containers({state: containers[state] for state in get_args(ContainerState)})
    loaded = {policy.name: 0 for policy in node.policies}
    node.metrics.policy_containers(loaded | containers_by_policy(node))

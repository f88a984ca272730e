"""Gauges refreshed by a timer: pools, pods and containers by state, containers by policy."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import get_args

from phantom_cri.lifecycle.confinement import containers_by_policy
from phantom_cri.lifecycle.runtime import Runtime
from phantom_cri.model import ContainerState, SandboxState

EVERY_SECONDS = 1.0


async def keep_current(runtime: Runtime) -> None:
    """Refresh the gauges until cancelled."""
    while True:
        refresh(runtime)
        await asyncio.sleep(EVERY_SECONDS)


def refresh(runtime: Runtime) -> None:
    for pool in runtime.pools.values():
        report = pool.statistics()
        runtime.metrics.pool_fragments(
            report.name, {"warm": report.warm, "starting": report.starting, "claimed": report.claimed}
        )
    pods = Counter(pod.record.state for pod in runtime.records.pods.values())
    runtime.metrics.sandboxes({state: pods[state] for state in get_args(SandboxState)})
    containers = Counter(container.record.state for container in runtime.records.containers.values())
    runtime.metrics.records_durable(not runtime.durable.unavailable_reason)
    runtime.metrics.containers({state: containers[state] for state in get_args(ContainerState)})
    loaded = {policy.name: 0 for policy in runtime.policies}
    runtime.metrics.policy_containers(loaded | containers_by_policy(runtime))

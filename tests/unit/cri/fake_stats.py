"""Stats, metrics and events as a wire test wants them: what it put there, as it put it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from phantom_cri.errors import NotFound
from phantom_cri.model import ContainerEvent
from phantom_cri.usage import ContainerUsage, Metric, PodMetrics, PodUsage


class FakeStats:
    """`filters` is what the last list was asked for; `events` are told, then `events_end` is raised."""

    def __init__(self) -> None:
        self.container_usages: list[ContainerUsage] = []
        self.pod_usages: list[PodUsage] = []
        self.announced: list[Metric] = []
        self.pod_metrics: list[PodMetrics] = []
        self.filters: Any = ()
        self.events: list[ContainerEvent] = []
        self.events_end: Exception | None = None
        self.listens, self.let_go = asyncio.Event(), asyncio.Event()

    async def container_stats(self, container_id: str) -> ContainerUsage:
        for usage in self.container_usages:
            if usage.record.id == container_id:
                return usage
        raise NotFound(f"container {container_id}")

    async def list_container_stats(
        self, container_id: str = "", sandbox_id: str = "", labels: Mapping[str, str] = {}
    ) -> Sequence[ContainerUsage]:
        self.filters = container_id, sandbox_id, labels
        return self.container_usages

    async def pod_sandbox_stats(self, sandbox_id: str) -> PodUsage:
        for usage in self.pod_usages:
            if usage.record.id == sandbox_id:
                return usage
        raise NotFound(f"pod {sandbox_id}")

    async def list_pod_sandbox_stats(
        self, sandbox_id: str = "", labels: Mapping[str, str] = {}
    ) -> Sequence[PodUsage]:
        self.filters = sandbox_id, labels
        return self.pod_usages

    async def metrics(self) -> Sequence[Metric]:
        return self.announced

    async def pod_sandbox_metrics(self) -> Sequence[PodMetrics]:
        return self.pod_metrics

    def listen(self) -> AsyncIterator[ContainerEvent]:
        self.listens.set()
        return self._told()

    async def _told(self) -> AsyncIterator[ContainerEvent]:
        for event in self.events:
            yield event
        if self.events_end is not None:
            raise self.events_end
        try:
            await asyncio.Event().wait()
        finally:
            self.let_go.set()

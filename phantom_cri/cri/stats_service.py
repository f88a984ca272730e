"""Stats and metrics on the wire. Long lists are converted on a thread: 1000 pods take some 0.1 s of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.cri.chunks import chunks
from phantom_cri.cri.convert.stats import (
    container_stats_message,
    metric_descriptor_message,
    pod_metrics_message,
    pod_stats_message,
)
from phantom_cri.errors import InvalidArgument
from phantom_cri.usage import ContainerUsage, Metric, PodMetrics, PodUsage

Value = TypeVar("Value")
Item = TypeVar("Item")

_FEW = 8
"""So many are converted at once, without a thread."""


class StatsVerbs(Protocol):
    """Ids may be unique prefixes where one object is meant, prefixes in the lists."""

    async def container_stats(self, container_id: str) -> ContainerUsage: ...

    async def list_container_stats(
        self, container_id: str = "", sandbox_id: str = "", labels: Mapping[str, str] = {}
    ) -> Sequence[ContainerUsage]:
        """Of running containers."""
        ...

    async def pod_sandbox_stats(self, sandbox_id: str) -> PodUsage: ...

    async def list_pod_sandbox_stats(
        self, sandbox_id: str = "", labels: Mapping[str, str] = {}
    ) -> Sequence[PodUsage]:
        """Of ready pods."""
        ...

    async def metrics(self) -> Sequence[Metric]:
        """Those that `pod_sandbox_metrics` may hold on this kernel."""
        ...

    async def pod_sandbox_metrics(self) -> Sequence[PodMetrics]: ...


class StatsService:
    _verbs: StatsVerbs

    async def ContainerStats(self, request: pb.ContainerStatsRequest) -> pb.ContainerStatsResponse:
        if not request.container_id:
            raise InvalidArgument("container_id: must not be empty")
        usage = await self._verbs.container_stats(request.container_id)
        return pb.ContainerStatsResponse(stats=container_stats_message(usage))

    async def ListContainerStats(
        self, request: pb.ListContainerStatsRequest
    ) -> pb.ListContainerStatsResponse:
        return pb.ListContainerStatsResponse(stats=await self._container_stats(request.filter))

    async def StreamContainerStats(
        self, request: pb.StreamContainerStatsRequest
    ) -> AsyncIterator[pb.StreamContainerStatsResponse]:
        for chunk in chunks(await self._container_stats(request.filter)):
            yield pb.StreamContainerStatsResponse(container_stats=chunk)

    async def _container_stats(self, wanted: pb.ContainerStatsFilter) -> list[pb.ContainerStats]:
        usages = await self._verbs.list_container_stats(
            wanted.id, wanted.pod_sandbox_id, dict(wanted.label_selector)
        )
        return await _converted(container_stats_message, usages)

    async def PodSandboxStats(self, request: pb.PodSandboxStatsRequest) -> pb.PodSandboxStatsResponse:
        if not request.pod_sandbox_id:
            raise InvalidArgument("pod_sandbox_id: must not be empty")
        usage = await self._verbs.pod_sandbox_stats(request.pod_sandbox_id)
        return pb.PodSandboxStatsResponse(stats=pod_stats_message(usage))

    async def ListPodSandboxStats(
        self, request: pb.ListPodSandboxStatsRequest
    ) -> pb.ListPodSandboxStatsResponse:
        return pb.ListPodSandboxStatsResponse(stats=await self._pod_stats(request.filter))

    async def StreamPodSandboxStats(
        self, request: pb.StreamPodSandboxStatsRequest
    ) -> AsyncIterator[pb.StreamPodSandboxStatsResponse]:
        for chunk in chunks(await self._pod_stats(request.filter)):
            yield pb.StreamPodSandboxStatsResponse(pod_sandbox_stats=chunk)

    async def _pod_stats(self, wanted: pb.PodSandboxStatsFilter) -> list[pb.PodSandboxStats]:
        usages = await self._verbs.list_pod_sandbox_stats(wanted.id, dict(wanted.label_selector))
        return await _converted(pod_stats_message, usages)

    async def ListMetricDescriptors(
        self, request: pb.ListMetricDescriptorsRequest
    ) -> pb.ListMetricDescriptorsResponse:
        metrics = await self._verbs.metrics()
        return pb.ListMetricDescriptorsResponse(descriptors=map(metric_descriptor_message, metrics))

    async def ListPodSandboxMetrics(
        self, request: pb.ListPodSandboxMetricsRequest
    ) -> pb.ListPodSandboxMetricsResponse:
        pods = await _converted(pod_metrics_message, await self._verbs.pod_sandbox_metrics())
        return pb.ListPodSandboxMetricsResponse(pod_metrics=pods)

    async def StreamPodSandboxMetrics(
        self, request: pb.StreamPodSandboxMetricsRequest
    ) -> AsyncIterator[pb.StreamPodSandboxMetricsResponse]:
        pods = await _converted(pod_metrics_message, await self._verbs.pod_sandbox_metrics())
        for chunk in chunks(pods):
            yield pb.StreamPodSandboxMetricsResponse(pod_sandbox_metrics=chunk)


async def _converted(convert: Callable[[Value], Item], values: Sequence[Value]) -> list[Item]:
    if len(values) <= _FEW:
        return list(map(convert, values))
    return await asyncio.to_thread(lambda: list(map(convert, values)))

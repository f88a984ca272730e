"""The stats and metrics RPCs.

A list of 1000 containers is 12 MB of metrics, so it is converted and encoded on a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence, Sized
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.cri.chunks import chunks
from phantom_cri.cri.convert.common import container_id_from, sandbox_id_from
from phantom_cri.cri.convert.stats import (
    container_stats_message,
    metric_descriptor_message,
    pod_metrics_message,
    pod_stats_message,
)
from phantom_cri.usage import ContainerUsage, Metric, PodMetrics, PodUsage

Value = TypeVar("Value")
Item = TypeVar("Item", bound=Message)
Result = TypeVar("Result")
Method = TypeVar("Method", bound=Callable[..., Any])

_FEW = 8
"""Up to this number, containers are converted without a thread."""


def _answers_bytes(method: Method) -> Method:
    """Marks an RPC that returns an encoded response, for `phantom_cri.rpc.calls.Calls`."""
    method.answers_bytes = True  # type: ignore[attr-defined]
    return method


class StatsVerbs(Protocol):
    """Ids of single objects may be unique prefixes; in lists they may be any prefixes."""

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
        """The metrics that `pod_sandbox_metrics` may return on this kernel."""
        ...

    async def pod_sandbox_metrics(self) -> Iterable[PodMetrics]:
        """Lazy, since all of a big node at once would need much memory: iterate on a thread."""
        ...


class StatsService:
    _verbs: StatsVerbs

    async def ContainerStats(self, request: pb.ContainerStatsRequest) -> pb.ContainerStatsResponse:
        usage = await self._verbs.container_stats(container_id_from(request.container_id))
        return pb.ContainerStatsResponse(stats=container_stats_message(usage))

    @_answers_bytes
    async def ListContainerStats(self, request: pb.ListContainerStatsRequest) -> bytes:
        def response(usages: Iterable[ContainerUsage]) -> Message:
            return pb.ListContainerStatsResponse(stats=map(container_stats_message, usages))

        return await _on_thread(_encoded, response, await self._container_usages(request.filter))

    async def StreamContainerStats(
        self, request: pb.StreamContainerStatsRequest
    ) -> AsyncIterator[pb.StreamContainerStatsResponse]:
        usages = await self._container_usages(request.filter)
        for chunk in chunks(await _on_thread(_converted, container_stats_message, usages)):
            yield pb.StreamContainerStatsResponse(container_stats=chunk)

    async def _container_usages(self, wanted: pb.ContainerStatsFilter) -> Sequence[ContainerUsage]:
        labels = dict(wanted.label_selector)
        return await self._verbs.list_container_stats(wanted.id, wanted.pod_sandbox_id, labels)

    async def PodSandboxStats(self, request: pb.PodSandboxStatsRequest) -> pb.PodSandboxStatsResponse:
        usage = await self._verbs.pod_sandbox_stats(sandbox_id_from(request.pod_sandbox_id))
        return pb.PodSandboxStatsResponse(stats=pod_stats_message(usage))

    @_answers_bytes
    async def ListPodSandboxStats(self, request: pb.ListPodSandboxStatsRequest) -> bytes:
        def response(usages: Iterable[PodUsage]) -> Message:
            return pb.ListPodSandboxStatsResponse(stats=map(pod_stats_message, usages))

        return await _on_thread(_encoded, response, await self._pod_usages(request.filter))

    async def StreamPodSandboxStats(
        self, request: pb.StreamPodSandboxStatsRequest
    ) -> AsyncIterator[pb.StreamPodSandboxStatsResponse]:
        usages = await self._pod_usages(request.filter)
        for chunk in chunks(await _on_thread(_converted, pod_stats_message, usages)):
            yield pb.StreamPodSandboxStatsResponse(pod_sandbox_stats=chunk)

    async def _pod_usages(self, wanted: pb.PodSandboxStatsFilter) -> Sequence[PodUsage]:
        return await self._verbs.list_pod_sandbox_stats(wanted.id, dict(wanted.label_selector))

    async def ListMetricDescriptors(
        self, request: pb.ListMetricDescriptorsRequest
    ) -> pb.ListMetricDescriptorsResponse:
        metrics = await self._verbs.metrics()
        return pb.ListMetricDescriptorsResponse(descriptors=map(metric_descriptor_message, metrics))

    @_answers_bytes
    async def ListPodSandboxMetrics(self, request: pb.ListPodSandboxMetricsRequest) -> bytes:
        def response(pods: Iterable[PodMetrics]) -> Message:
            return pb.ListPodSandboxMetricsResponse(pod_metrics=map(pod_metrics_message, pods))

        return await _on_thread(_encoded, response, await self._verbs.pod_sandbox_metrics())

    async def StreamPodSandboxMetrics(
        self, request: pb.StreamPodSandboxMetricsRequest
    ) -> AsyncIterator[pb.StreamPodSandboxMetricsResponse]:
        pods = await self._verbs.pod_sandbox_metrics()
        for chunk in chunks(await _on_thread(_converted, pod_metrics_message, pods)):
            yield pb.StreamPodSandboxMetricsResponse(pod_sandbox_metrics=chunk)


def _encoded(response: Callable[[Iterable[Value]], Message], values: Iterable[Value]) -> bytes:
    return response(values).SerializeToString()


def _converted(convert: Callable[[Value], Item], values: Iterable[Value]) -> list[Item]:
    return list(map(convert, values))


async def _on_thread(
    work: Callable[[Callable[..., Any], Iterable[Value]], Result],
    convert: Callable[..., Any],
    values: Iterable[Value],
) -> Result:
    if isinstance(values, Sized) and len(values) <= _FEW:
        return work(convert, values)
    return await asyncio.to_thread(work, convert, values)

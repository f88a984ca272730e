"""Stats and metrics: implements `phantom_cri.cri.stats_service.StatsVerbs`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from phantom_cri.errors import FailedPrecondition
from phantom_cri.lifecycle.live import Container, Pod
from phantom_cri.lifecycle.runtime import Runtime
from phantom_cri.lifecycle.stats.filesystem import filesystem_of
from phantom_cri.lifecycle.stats.measuring import Measuring
from phantom_cri.lifecycle.stats.pod_metrics import announced, samples_of
from phantom_cri.usage import ContainerUsage, Metric, PodMetrics, PodUsage


class StatsVerbs:
    _runtime: Runtime

    @cached_property
    def _measuring(self) -> Measuring:
        return Measuring(self._runtime)

    async def container_stats(self, container_id: str) -> ContainerUsage:
        (usage,) = await self._measuring.containers([self._runtime.records.container(container_id)])
        return usage

    async def list_container_stats(
        self, container_id: str = "", sandbox_id: str = "", labels: Mapping[str, str] = {}
    ) -> Sequence[ContainerUsage]:
        def fits(container: Container) -> bool:
            record = container.record
            return (
                container.id.startswith(container_id)
                and record.sandbox_id.startswith(sandbox_id)
                and labels.items() <= record.config.labels.items()
            )

        chosen = filter(fits, list(self._runtime.records.containers.values()))
        return await self._measuring.containers(chosen)

    async def pod_sandbox_stats(self, sandbox_id: str) -> PodUsage:
        pod = self._runtime.records.pod(sandbox_id)
        found = await self._measuring.pods([pod])
        if not found:
            raise FailedPrecondition(f"pod sandbox {pod.id} has no stats: it is {pod.record.state}")
        return found[0]

    async def list_pod_sandbox_stats(
        self, sandbox_id: str = "", labels: Mapping[str, str] = {}
    ) -> Sequence[PodUsage]:
        return await self._measuring.pods(
            pod
            for pod in self._ready()
            if pod.id.startswith(sandbox_id) and labels.items() <= pod.record.config.labels.items()
        )

    async def metrics(self) -> Sequence[Metric]:
        example = self._runtime.cgroups.fragments_path(self._runtime.config.cgroup.parent)
        return announced(await self._measuring.everything_of(example))

    async def pod_sandbox_metrics(self) -> Iterable[PodMetrics]:
        pods = await self._measuring.pods(self._ready(), detailed=True)
        filesystem = filesystem_of(self._runtime.config.root)
        return (samples_of(pod, filesystem) for pod in pods)

    def _ready(self) -> list[Pod]:
        return [pod for pod in self._runtime.records.pods.values() if pod.record.state == "ready"]

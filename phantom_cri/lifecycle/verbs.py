"""The verbs as the CRI services call them: one thin method for each function of this package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from phantom_cri import __version__
from phantom_cri.lifecycle.checkpoint_container import CheckpointVerbs
from phantom_cri.lifecycle.create_container import create_container
from phantom_cri.lifecycle.event_verbs import EventVerbs
from phantom_cri.lifecycle.exec_sync import exec_sync
from phantom_cri.lifecycle.remove_container import remove_container
from phantom_cri.lifecycle.remove_pod_sandbox import remove_pod_sandbox
from phantom_cri.lifecycle.reopen_container_log import reopen_container_log
from phantom_cri.lifecycle.run_pod_sandbox import run_pod_sandbox
from phantom_cri.lifecycle.runtime import Runtime
from phantom_cri.lifecycle.start_container import start_container
from phantom_cri.lifecycle.statistics import statistics
from phantom_cri.lifecycle.stats.verbs import StatsVerbs
from phantom_cri.lifecycle.stop_container import stop_container
from phantom_cri.lifecycle.stop_pod_sandbox import stop_pod_sandbox
from phantom_cri.lifecycle.streams.verbs import StreamingVerbs
from phantom_cri.lifecycle.update_container_resources import update_container_resources
from phantom_cri.lifecycle.update_pod_sandbox_resources import update_pod_sandbox_resources
from phantom_cri.model import (
    CgroupDriver,
    ContainerConfig,
    ContainerRecord,
    ContainerState,
    ExecResult,
    Resources,
    RuntimeCondition,
    RuntimeHandler,
    RuntimeStatus,
    RuntimeVersion,
    SandboxConfig,
    SandboxRecord,
    SandboxState,
)

RUNTIME_NAME = "phantom"
"""Prefix of the kubelet's container ids: must never change."""


class PodVerbs(CheckpointVerbs, EventVerbs, StatsVerbs, StreamingVerbs):
    """Implements `phantom_cri.cri.verbs.RuntimeVerbs`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def version(self) -> RuntimeVersion:
        return RuntimeVersion(name=RUNTIME_NAME, version=__version__)

    async def cgroup_driver(self) -> CgroupDriver:
        return self._runtime.cgroups.driver

    async def status(self) -> RuntimeStatus:
        runtime = self._runtime
        ready, reason, message = await runtime.network.ready()
        network = RuntimeCondition(type="NetworkReady", status=ready, reason=reason, message=message)
        return RuntimeStatus(
            conditions=(RuntimeCondition(type="RuntimeReady", status=True), network),
            handlers=tuple(
                RuntimeHandler(
                    name=name,
                    recursive_read_only_mounts=True,
                    user_namespaces=not runtime.userns_unavailable,
                )
                for name in runtime.handlers
            ),
            supplemental_groups_policy=True,
            details={
                "rootDir": runtime.config.root,
                "stateDir": runtime.config.state,
                "runtimeVersion": __version__,
                "runtimeHandlers": [
                    {"name": one.name, "driver": one.driver, "policy": one.policy.name}
                    for one in runtime.handlers.values()
                ],
                "durableRecords": f"off: {runtime.durable.unavailable_reason}"
                if runtime.durable.unavailable_reason
                else "on",
                "podsOfOtherReleases": {
                    pod.id: pod.other_version for pod in runtime.records.pods.values() if pod.other_version
                },
                "cgroupDriver": runtime.config.cgroup.driver,
                "cgroupVersion": runtime.cgroups.version,
                "cgroups": runtime.cgroups.features(),
                "network": runtime.network.features(),
                "statistics": statistics(runtime),
                "configuration": runtime.config,
            },
        )

    async def use_pod_ranges(self, ranges: Sequence[str]) -> None:
        await self._runtime.network.use_ranges(ranges)

    async def run_pod_sandbox(self, config: SandboxConfig, runtime_handler: str) -> str:
        return await run_pod_sandbox(self._runtime, config, runtime_handler)

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        await stop_pod_sandbox(self._runtime, sandbox_id)

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        await remove_pod_sandbox(self._runtime, sandbox_id)

    async def pod_sandbox_status(self, sandbox_id: str) -> SandboxRecord:
        return self._runtime.records.pod(sandbox_id).record

    async def pod_containers(self, sandbox_id: str) -> Sequence[ContainerRecord]:
        return [container.record for container in self._runtime.records.pod(sandbox_id).containers.values()]

    async def list_pod_sandboxes(
        self, sandbox_id: str = "", state: SandboxState | None = None, labels: Mapping[str, str] = {}
    ) -> Iterable[SandboxRecord]:
        return [
            pod.record
            for pod in self._runtime.records.pods.values()
            if pod.id.startswith(sandbox_id)
            and state in (None, pod.record.state)
            and labels.items() <= pod.record.config.labels.items()
        ]

    async def create_container(
        self, sandbox_id: str, config: ContainerConfig, sandbox_config: SandboxConfig | None
    ) -> str:
        """`sandbox_config` repeats that of RunPodSandbox and is ignored: our record is used."""
        return await create_container(self._runtime, sandbox_id, config)

    async def start_container(self, container_id: str) -> None:
        await start_container(self._runtime, container_id)

    async def stop_container(self, container_id: str, timeout_s: int) -> None:
        await stop_container(self._runtime, container_id, timeout_s)

    async def remove_container(self, container_id: str) -> None:
        await remove_container(self._runtime, container_id)

    async def container_status(self, container_id: str) -> ContainerRecord:
        return self._runtime.records.container(container_id).record

    async def list_containers(
        self,
        container_id: str = "",
        sandbox_id: str = "",
        state: ContainerState | None = None,
        labels: Mapping[str, str] = {},
    ) -> Iterable[ContainerRecord]:
        return [
            container.record
            for container in self._runtime.records.containers.values()
            if container.id.startswith(container_id)
            and container.record.sandbox_id.startswith(sandbox_id)
            and state in (None, container.record.state)
            and labels.items() <= container.record.config.labels.items()
        ]

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: int) -> ExecResult:
        return await exec_sync(self._runtime, container_id, command, timeout_s)

    async def update_container_resources(
        self, container_id: str, resources: Resources, annotations: Mapping[str, str]
    ) -> None:
        await update_container_resources(self._runtime, container_id, resources)

    async def update_pod_sandbox_resources(
        self, sandbox_id: str, overhead: Resources | None, resources: Resources | None
    ) -> None:
        await update_pod_sandbox_resources(self._runtime, sandbox_id, overhead, resources)

    async def reopen_container_log(self, container_id: str) -> None:
        await reopen_container_log(self._runtime, container_id)

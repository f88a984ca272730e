"""CRI's RuntimeService: each RPC converts the request, calls a verb, and converts the result.

Stats and metrics, events, streaming, checkpoints, resources of pods and the runtime's configuration are in
separate classes, which it inherits.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.cri.checkpoint_service import CheckpointService
from phantom_cri.cri.chunks import chunks
from phantom_cri.cri.convert.common import (
    CGROUP_DRIVERS,
    command_from,
    container_id_from,
    in_range,
    resources_from,
    sandbox_id_from,
)
from phantom_cri.cri.convert.container import (
    container_config_from,
    container_messages,
    container_state_from,
    container_status_message,
)
from phantom_cri.cri.convert.details import container_details, sandbox_details
from phantom_cri.cri.convert.sandbox import (
    sandbox_config_from,
    sandbox_messages,
    sandbox_state_from,
    sandbox_status_message,
)
from phantom_cri.cri.convert.status import status_response
from phantom_cri.cri.event_service import EventService
from phantom_cri.cri.pod_resources import PodResourcesService
from phantom_cri.cri.runtime_config import RuntimeConfigService
from phantom_cri.cri.stats_service import StatsService
from phantom_cri.cri.streaming_service import StreamingService
from phantom_cri.cri.verbs import RuntimeVerbs
from phantom_cri.model import ContainerRecord, SandboxRecord

# The kubelet's own version of the interface, and the name of its package.
KUBELET_API = "0.1.0"
CRI_API = "v1"


class RuntimeService(
    CheckpointService, EventService, StatsService, PodResourcesService, RuntimeConfigService, StreamingService
):
    _verbs: RuntimeVerbs

    def __init__(self, verbs: RuntimeVerbs) -> None:
        self._verbs = verbs

    async def Version(self, request: pb.VersionRequest) -> pb.VersionResponse:
        version = await self._verbs.version()
        return pb.VersionResponse(
            version=KUBELET_API,
            runtime_name=version.name,
            runtime_version=version.version,
            runtime_api_version=CRI_API,
        )

    async def Status(self, request: pb.StatusRequest) -> pb.StatusResponse:
        return status_response(await self._verbs.status(), verbose=request.verbose)

    async def RuntimeConfig(self, request: pb.RuntimeConfigRequest) -> pb.RuntimeConfigResponse:
        driver = CGROUP_DRIVERS[await self._verbs.cgroup_driver()]
        return pb.RuntimeConfigResponse(linux=pb.LinuxRuntimeConfiguration(cgroup_driver=driver))

    async def RunPodSandbox(self, request: pb.RunPodSandboxRequest) -> pb.RunPodSandboxResponse:
        config = sandbox_config_from(request.config)
        sandbox_id = await self._verbs.run_pod_sandbox(config, request.runtime_handler)
        return pb.RunPodSandboxResponse(pod_sandbox_id=sandbox_id)

    async def StopPodSandbox(self, request: pb.StopPodSandboxRequest) -> pb.StopPodSandboxResponse:
        await self._verbs.stop_pod_sandbox(sandbox_id_from(request.pod_sandbox_id))
        return pb.StopPodSandboxResponse()

    async def RemovePodSandbox(self, request: pb.RemovePodSandboxRequest) -> pb.RemovePodSandboxResponse:
        await self._verbs.remove_pod_sandbox(sandbox_id_from(request.pod_sandbox_id))
        return pb.RemovePodSandboxResponse()

    async def PodSandboxStatus(self, request: pb.PodSandboxStatusRequest) -> pb.PodSandboxStatusResponse:
        record = await self._verbs.pod_sandbox_status(sandbox_id_from(request.pod_sandbox_id))
        details = sandbox_details(record) if request.verbose else {}
        containers = await self._verbs.pod_containers(record.id)
        return pb.PodSandboxStatusResponse(
            status=sandbox_status_message(record),
            info=details,
            containers_statuses=[container_status_message(container) for container in containers],
            # With a timestamp the kubelet also uses the containers of this answer.
            timestamp=time.time_ns(),
        )

    async def ListPodSandbox(self, request: pb.ListPodSandboxRequest) -> pb.ListPodSandboxResponse:
        return pb.ListPodSandboxResponse(items=sandbox_messages(await self._sandboxes(request.filter)))

    async def StreamPodSandboxes(
        self, request: pb.StreamPodSandboxesRequest
    ) -> AsyncIterator[pb.StreamPodSandboxesResponse]:
        for chunk in chunks(sandbox_messages(await self._sandboxes(request.filter))):
            yield pb.StreamPodSandboxesResponse(pod_sandboxes=chunk)

    async def _sandboxes(self, wanted: pb.PodSandboxFilter) -> Iterable[SandboxRecord]:
        state = sandbox_state_from(wanted)
        return await self._verbs.list_pod_sandboxes(wanted.id, state, dict(wanted.label_selector))

    async def CreateContainer(self, request: pb.CreateContainerRequest) -> pb.CreateContainerResponse:
        config = container_config_from(request.config)
        has_pod = request.HasField("sandbox_config")
        pod = sandbox_config_from(request.sandbox_config, "sandbox_config") if has_pod else None
        container_id = await self._verbs.create_container(
            sandbox_id_from(request.pod_sandbox_id), config, pod
        )
        return pb.CreateContainerResponse(container_id=container_id)

    async def StartContainer(self, request: pb.StartContainerRequest) -> pb.StartContainerResponse:
        await self._verbs.start_container(container_id_from(request.container_id))
        return pb.StartContainerResponse()

    async def StopContainer(self, request: pb.StopContainerRequest) -> pb.StopContainerResponse:
        await self._verbs.stop_container(container_id_from(request.container_id), max(request.timeout, 0))
        return pb.StopContainerResponse()

    async def RemoveContainer(self, request: pb.RemoveContainerRequest) -> pb.RemoveContainerResponse:
        await self._verbs.remove_container(container_id_from(request.container_id))
        return pb.RemoveContainerResponse()

    async def ContainerStatus(self, request: pb.ContainerStatusRequest) -> pb.ContainerStatusResponse:
        record = await self._verbs.container_status(container_id_from(request.container_id))
        details = container_details(record) if request.verbose else {}
        return pb.ContainerStatusResponse(status=container_status_message(record), info=details)

    async def ListContainers(self, request: pb.ListContainersRequest) -> pb.ListContainersResponse:
        return pb.ListContainersResponse(
            containers=container_messages(await self._containers(request.filter))
        )

    async def StreamContainers(
        self, request: pb.StreamContainersRequest
    ) -> AsyncIterator[pb.StreamContainersResponse]:
        for chunk in chunks(container_messages(await self._containers(request.filter))):
            yield pb.StreamContainersResponse(containers=chunk)

    async def _containers(self, wanted: pb.ContainerFilter) -> Iterable[ContainerRecord]:
        state, labels = container_state_from(wanted), dict(wanted.label_selector)
        return await self._verbs.list_containers(wanted.id, wanted.pod_sandbox_id, state, labels)

    async def ExecSync(self, request: pb.ExecSyncRequest) -> pb.ExecSyncResponse:
        command = command_from(request.cmd)
        timeout_s = in_range(request.timeout, 0, 2**63 - 1, "timeout")
        result = await self._verbs.exec_sync(container_id_from(request.container_id), command, timeout_s)
        return pb.ExecSyncResponse(stdout=result.stdout, stderr=result.stderr, exit_code=result.exit_code)

    async def UpdateContainerResources(
        self, request: pb.UpdateContainerResourcesRequest
    ) -> pb.UpdateContainerResourcesResponse:
        resources, annotations = resources_from(request.linux, "linux"), dict(request.annotations)
        container_id = container_id_from(request.container_id)
        await self._verbs.update_container_resources(container_id, resources, annotations)
        return pb.UpdateContainerResourcesResponse()

    async def ReopenContainerLog(
        self, request: pb.ReopenContainerLogRequest
    ) -> pb.ReopenContainerLogResponse:
        await self._verbs.reopen_container_log(container_id_from(request.container_id))
        return pb.ReopenContainerLogResponse()

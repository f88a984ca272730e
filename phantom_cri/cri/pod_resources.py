"""UpdatePodSandboxResources: the kubelet announces a resize of a pod before it changes the pod's cgroup."""

from __future__ import annotations

from typing import Protocol

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.cri.convert.common import resources_from, sandbox_id_from
from phantom_cri.model import Resources


class PodResourceVerbs(Protocol):
    async def update_pod_sandbox_resources(
        self, sandbox_id: str, overhead: Resources | None, resources: Resources | None
    ) -> None:
        """Changes only fields that are set; None changes nothing."""
        ...


class PodResourcesService:
    """The part of `RuntimeService` for resources of a whole pod."""

    _verbs: PodResourceVerbs

    async def UpdatePodSandboxResources(
        self, request: pb.UpdatePodSandboxResourcesRequest
    ) -> pb.UpdatePodSandboxResourcesResponse:
        overhead = resources_from(request.overhead, "overhead") if request.HasField("overhead") else None
        resources = resources_from(request.resources, "resources") if request.HasField("resources") else None
        await self._verbs.update_pod_sandbox_resources(
            sandbox_id_from(request.pod_sandbox_id), overhead, resources
        )
        return pb.UpdatePodSandboxResourcesResponse()

"""CheckpointContainer: writes an archive of a container, which keeps running."""

from __future__ import annotations

from typing import Protocol

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.cri.convert.common import container_id_from, in_range


class CheckpointVerbs(Protocol):
    async def checkpoint_container(self, container_id: str, location: str, timeout_s: int) -> None:
        """`timeout_s` 0: the default."""
        ...


class CheckpointService:
    """The checkpoint part of `RuntimeService`."""

    _verbs: CheckpointVerbs

    async def CheckpointContainer(
        self, request: pb.CheckpointContainerRequest
    ) -> pb.CheckpointContainerResponse:
        timeout_s = in_range(request.timeout, 0, 2**31 - 1, "timeout")
        await self._verbs.checkpoint_container(
            container_id_from(request.container_id), request.location, timeout_s
        )
        return pb.CheckpointContainerResponse()

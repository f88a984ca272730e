"""What the wire asks of the rooms below, in values of `phantom_cri.model` only.

Every verb raises `PhantomError`s; a cancelled one (the client left, or its deadline passed) must
undo what it began. Ids may be unique prefixes. Stop and remove of what is unknown succeed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from phantom_cri.cri.checkpoint_service import CheckpointVerbs
from phantom_cri.cri.event_service import EventVerbs
from phantom_cri.cri.pod_resources import PodResourceVerbs
from phantom_cri.cri.runtime_config import RuntimeConfigVerbs
from phantom_cri.cri.stats_service import StatsVerbs
from phantom_cri.cri.streaming_service import StreamingVerbs
from phantom_cri.model import (
    AuthConfig,
    CgroupDriver,
    ContainerConfig,
    ContainerRecord,
    ContainerState,
    ExecResult,
    FilesystemUsage,
    Image,
    ImageSpec,
    Resources,
    RuntimeStatus,
    RuntimeVersion,
    SandboxConfig,
    SandboxRecord,
    SandboxState,
)


class RuntimeVerbs(
    CheckpointVerbs, EventVerbs, StatsVerbs, PodResourceVerbs, RuntimeConfigVerbs, StreamingVerbs, Protocol
):
    """Pods and containers. Seconds for every timeout."""

    async def version(self) -> RuntimeVersion: ...

    async def status(self) -> RuntimeStatus: ...

    async def cgroup_driver(self) -> CgroupDriver: ...

    async def run_pod_sandbox(self, config: SandboxConfig, runtime_handler: str) -> str:
        """Answers the new pod's id; "" is the default handler."""
        ...

    async def stop_pod_sandbox(self, sandbox_id: str) -> None: ...

    async def remove_pod_sandbox(self, sandbox_id: str) -> None: ...

    async def pod_sandbox_status(self, sandbox_id: str) -> SandboxRecord: ...

    async def pod_containers(self, sandbox_id: str) -> Sequence[ContainerRecord]:
        """All of one pod, in the order of their making."""
        ...

    async def list_pod_sandboxes(
        self, sandbox_id: str = "", state: SandboxState | None = None, labels: Mapping[str, str] = {}
    ) -> Iterable[SandboxRecord]:
        """Those that match all that is given; must not wait for another verb."""
        ...

    async def create_container(
        self, sandbox_id: str, config: ContainerConfig, sandbox_config: SandboxConfig | None
    ) -> str:
        """Answers the new container's id."""
        ...

    async def start_container(self, container_id: str) -> None: ...

    async def stop_container(self, container_id: str, timeout_s: int) -> None:
        """`timeout_s` 0: SIGKILL at once."""
        ...

    async def remove_container(self, container_id: str) -> None: ...

    async def container_status(self, container_id: str) -> ContainerRecord: ...

    async def list_containers(
        self,
        container_id: str = "",
        sandbox_id: str = "",
        state: ContainerState | None = None,
        labels: Mapping[str, str] = {},
    ) -> Iterable[ContainerRecord]: ...

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: int) -> ExecResult:
        """`timeout_s` 0: none. Raises DeadlineExceeded when it has passed."""
        ...

    async def update_container_resources(
        self, container_id: str, resources: Resources, annotations: Mapping[str, str]
    ) -> None:
        """Only the fields of `resources` that are set change."""
        ...

    async def reopen_container_log(self, container_id: str) -> None: ...


class ImageVerbs(Protocol):
    """Images by any of their names: tag, digest, id, prefix of an id."""

    async def list_images(self, image: str = "") -> Iterable[Image]: ...

    async def image_status(self, image: str) -> Image | None: ...

    async def image_info(self, image_id: str) -> Mapping[str, object]:
        """The image's own config under `imageSpec`, and where its parts lie."""
        ...

    async def pull_image(self, spec: ImageSpec, auth: AuthConfig | None) -> str:
        """Answers the image's id."""
        ...

    async def remove_image(self, image: str) -> None: ...

    async def image_fs_info(self) -> Iterable[FilesystemUsage]: ...

"""The verbs called by the CRI services, with values of `phantom_cri.model` only.

Every verb raises `PhantomError`s; a cancelled one (the client disconnected, or its deadline passed) has to
clean up. Ids may be unique prefixes. Stop and remove of unknown ids succeed.
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
    """Pods and containers. Timeouts are in seconds."""

    async def version(self) -> RuntimeVersion: ...

    async def status(self) -> RuntimeStatus: ...

    async def cgroup_driver(self) -> CgroupDriver: ...

    async def run_pod_sandbox(self, config: SandboxConfig, runtime_handler: str) -> str:
        """Returns the new pod's id; "" is the default handler."""
        ...

    async def stop_pod_sandbox(self, sandbox_id: str) -> None: ...

    async def remove_pod_sandbox(self, sandbox_id: str) -> None: ...

    async def pod_sandbox_status(self, sandbox_id: str) -> SandboxRecord: ...

    async def pod_containers(self, sandbox_id: str) -> Sequence[ContainerRecord]:
        """All containers of one pod, in the order of their creation."""
        ...

    async def list_pod_sandboxes(
        self, sandbox_id: str = "", state: SandboxState | None = None, labels: Mapping[str, str] = {}
    ) -> Iterable[SandboxRecord]:
        """The containers that match all filters; must not wait for another verb."""
        ...

    async def create_container(
        self, sandbox_id: str, config: ContainerConfig, sandbox_config: SandboxConfig | None
    ) -> str:
        """Returns the new container's id."""
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
        """`timeout_s` 0: none. Raises DeadlineExceeded after the timeout."""
        ...

    async def update_container_resources(
        self, container_id: str, resources: Resources, annotations: Mapping[str, str]
    ) -> None:
        """Changes only the fields of `resources` that are set."""
        ...

    async def reopen_container_log(self, container_id: str) -> None: ...


class ImageVerbs(Protocol):
    """Images are named by tag, digest, id, or prefix of an id."""

    async def list_images(self, image: str = "") -> Iterable[Image]: ...

    async def image_status(self, image: str) -> Image | None: ...

    async def image_info(self, image_id: str) -> Mapping[str, object]:
        """The image's config under `imageSpec`, and the paths of its parts."""
        ...

    async def pull_image(self, spec: ImageSpec, auth: AuthConfig | None) -> str:
        """Returns the image's id."""
        ...

    async def remove_image(self, image: str) -> None: ...

    async def image_fs_info(self) -> Iterable[FilesystemUsage]: ...

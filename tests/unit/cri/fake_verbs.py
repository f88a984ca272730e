"""Verbs over two dictionaries: what a wire test needs of the rooms below, without any of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from phantom_cri.codec import replace
from phantom_cri.errors import NotFound
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
    RuntimeCondition,
    RuntimeHandler,
    RuntimeStatus,
    RuntimeVersion,
    SandboxConfig,
    SandboxRecord,
    SandboxState,
    Streams,
)
from tests.unit.cri.fake_stats import FakeStats

SANDBOX_ID, CONTAINER_ID, IMAGE_ID = "a" * 64, "b" * 64, "sha256:" + "c" * 64


class FakeRuntime(FakeStats):
    """Keeps what it is given; `failure` is raised by the next exec, `cancelled` says one was."""

    def __init__(self) -> None:
        super().__init__()
        self.sandboxes: dict[str, SandboxRecord] = {}
        self.containers: dict[str, ContainerRecord] = {}
        self.failure: BaseException | None = None
        self.started, self.cancelled = asyncio.Event(), asyncio.Event()
        self.stop_timeouts: list[int] = []
        self.pod_ranges: tuple[str, ...] = ()

    async def version(self) -> RuntimeVersion:
        return RuntimeVersion(name="phantom", version="0.1.0")

    async def status(self) -> RuntimeStatus:
        return RuntimeStatus(
            conditions=(
                RuntimeCondition(type="RuntimeReady", status=True),
                RuntimeCondition(type="NetworkReady", status=False, reason="NoBridge", message="no nftables"),
            ),
            handlers=(RuntimeHandler(name=""), RuntimeHandler(name="strict", user_namespaces=True)),
            supplemental_groups_policy=True,
            details={"stateDir": "/run/phantom"},
        )

    async def cgroup_driver(self) -> CgroupDriver:
        return "cgroupfs"

    async def use_pod_ranges(self, ranges: Sequence[str]) -> None:
        self.pod_ranges = tuple(ranges)

    async def run_pod_sandbox(self, config: SandboxConfig, runtime_handler: str) -> str:
        self.sandboxes[SANDBOX_ID] = SandboxRecord(
            id=SANDBOX_ID,
            config=config,
            created_at=1,
            runtime_handler=runtime_handler,
            ips=("10.0.0.2", "fd00::2"),
        )
        return SANDBOX_ID

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        if record := self.sandboxes.get(sandbox_id):
            self.sandboxes[sandbox_id] = replace(record, state="notready")

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        self.sandboxes.pop(sandbox_id, None)

    async def pod_sandbox_status(self, sandbox_id: str) -> SandboxRecord:
        try:
            return self.sandboxes[sandbox_id]
        except KeyError:
            raise NotFound(f"pod {sandbox_id}") from None

    async def pod_containers(self, sandbox_id: str) -> Sequence[ContainerRecord]:
        return [record for record in self.containers.values() if record.sandbox_id == sandbox_id]

    async def list_pod_sandboxes(
        self, sandbox_id: str = "", state: SandboxState | None = None, labels: Mapping[str, str] = {}
    ) -> Iterable[SandboxRecord]:
        return [
            record
            for record in self.sandboxes.values()
            if record.id.startswith(sandbox_id)
            and state in (None, record.state)
            and labels.items() <= record.config.labels.items()
        ]

    async def create_container(
        self, sandbox_id: str, config: ContainerConfig, sandbox_config: SandboxConfig | None
    ) -> str:
        self.containers[CONTAINER_ID] = ContainerRecord(
            id=CONTAINER_ID,
            sandbox_id=sandbox_id,
            config=config,
            image_id=IMAGE_ID,
            image_ref="r@" + IMAGE_ID,
            image_name="docker.io/library/busybox:latest",
            created_at=2,
            resources=config.resources,
            log_path="/logs/" + config.log_path,
        )
        return CONTAINER_ID

    async def start_container(self, container_id: str) -> None:
        record = await self.container_status(container_id)
        self.containers[container_id] = replace(record, state="running", started_at=3)

    async def stop_container(self, container_id: str, timeout_s: int) -> None:
        self.stop_timeouts.append(timeout_s)

    async def remove_container(self, container_id: str) -> None:
        self.containers.pop(container_id, None)

    async def container_status(self, container_id: str) -> ContainerRecord:
        try:
            return self.containers[container_id]
        except KeyError:
            raise NotFound(f"container {container_id}") from None

    async def list_containers(
        self,
        container_id: str = "",
        sandbox_id: str = "",
        state: ContainerState | None = None,
        labels: Mapping[str, str] = {},
    ) -> Iterable[ContainerRecord]:
        return [
            record
            for record in self.containers.values()
            if record.id.startswith(container_id)
            and record.sandbox_id.startswith(sandbox_id)
            and state in (None, record.state)
            and labels.items() <= record.config.labels.items()
        ]

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: int) -> ExecResult:
        if self.failure is not None:
            raise self.failure
        if command[0] == "forever":
            self.started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return ExecResult(stdout=" ".join(command).encode(), stderr=b"\xff", exit_code=7)

    async def update_container_resources(
        self, container_id: str, resources: Resources, annotations: Mapping[str, str]
    ) -> None:
        record = await self.container_status(container_id)
        self.containers[container_id] = replace(record, resources=resources)

    async def update_pod_sandbox_resources(
        self, sandbox_id: str, overhead: Resources | None, resources: Resources | None
    ) -> None:
        record = self.sandboxes[sandbox_id]
        self.sandboxes[sandbox_id] = replace(record, overhead=overhead, resources=resources)

    async def checkpoint_container(self, container_id: str, location: str, timeout_s: int) -> None:
        await self.container_status(container_id)

    async def reopen_container_log(self, container_id: str) -> None:
        await self.container_status(container_id)

    async def exec(self, container_id: str, command: Sequence[str], streams: Streams) -> str:
        return f"http://exec/{container_id}/{' '.join(command)}/{streams}"

    async def attach(self, container_id: str, streams: Streams) -> str:
        return f"http://attach/{container_id}/{streams}"

    async def port_forward(self, sandbox_id: str, ports: Sequence[int]) -> str:
        return f"http://port_forward/{sandbox_id}/{ports}"


class FakeImages:
    """One dictionary of images by id; remembers the credentials of the last pull."""

    def __init__(self) -> None:
        self.images: dict[str, Image] = {}
        self.pulled: tuple[ImageSpec, AuthConfig | None] | None = None

    async def list_images(self, image: str = "") -> Iterable[Image]:
        return [one for one in self.images.values() if image in ("", one.id, *one.repo_tags)]

    async def image_status(self, image: str) -> Image | None:
        return next(iter(await self.list_images(image)), None)

    async def pull_image(self, spec: ImageSpec, auth: AuthConfig | None) -> str:
        self.pulled = spec, auth
        self.images[IMAGE_ID] = Image(id=IMAGE_ID, repo_tags=(spec.image,), size=5)
        return IMAGE_ID

    async def image_info(self, image_id: str) -> Mapping[str, object]:
        return {"imageSpec": {"config": {"User": "7"}}}

    async def remove_image(self, image: str) -> None:
        self.images = {key: one for key, one in self.images.items() if image not in (one.id, *one.repo_tags)}

    async def image_fs_info(self) -> Iterable[FilesystemUsage]:
        return [FilesystemUsage(timestamp=9, mountpoint="/var/lib/phantom", used_bytes=0, inodes_used=1)]

"""A daemon without a kernel: the real services over verbs that keep dictionaries and write logs."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from phantom_cri.codec import Record, replace
from phantom_cri.cri.node_service import CheckShape, LayerReport, PoolShape, ProfileShape
from phantom_cri.cri.server import cri_server
from phantom_cri.doctor import Check
from phantom_cri.errors import NotFound, PhantomError
from phantom_cri.model import (
    AuthConfig,
    ContainerConfig,
    ContainerRecord,
    Image,
    ImageSpec,
    PlannedOp,
    PlanReport,
    PolicyReport,
    RuntimeVersion,
    SandboxConfig,
    SandboxRecord,
    Streams,
)
from phantom_cri.pools import PoolStatistics, Profile
from phantom_cri.rpc.calls import Calls
from phantom_cri.streaming import StreamServer
from phantom_cri.telemetry.metrics import Metrics
from phantom_cri.telemetry.tracing import NoTracing
from tests.unit.streaming.sessions import Opener

IMAGE = Image(
    id="sha256:" + "c" * 64,
    repo_tags=("registry.test/busybox:1",),
    repo_digests=("registry.test/busybox@sha256:" + "d" * 64,),
    size=1_234_567,
)
LAYER = "sha256:" + "1f" * 32


class Script(Record, frozen=True):
    """What a container does: text by stream, then an exit code; None: it runs until it is stopped."""

    lines: tuple[tuple[str, str], ...] = ()
    exit_code: int | None = 0
    reason: str = "Completed"


class FakeDaemon:
    """Verbs of all three services. `failures` by verb are raised, `calls` were made."""

    def __init__(self) -> None:
        self.pods: dict[str, SandboxRecord] = {}
        self.containers: dict[str, ContainerRecord] = {}
        self.images: dict[str, Image] = {"registry.test/busybox:1": IMAGE}
        self.remote: dict[str, Image] = {}
        self.script = Script()
        self.failures: dict[str, PhantomError] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.configs: list[ContainerConfig] = []
        self.pulled_with: AuthConfig | None = None
        self.running = asyncio.Event()
        self.plan_is_sent = True
        self.attached: tuple[str, ...] = ("cat",)
        self.streams: StreamServer | None = None
        self.opener: Opener | None = None
        self.checks: tuple[Check, ...] = (Check("kernel", "ok", "6.18", True),)

    def _called(self, verb: str, *arguments: Any) -> None:
        self.calls.append((verb, *arguments))
        if verb in self.failures:
            raise self.failures[verb]

    async def version(self) -> RuntimeVersion:
        return RuntimeVersion(name="phantom", version="9.8.7")

    async def run_pod_sandbox(self, config: SandboxConfig, runtime_handler: str) -> str:
        self._called("run_pod_sandbox", runtime_handler)
        sandbox_id = f"{len(self.calls):02x}" * 32
        self.pods[sandbox_id] = SandboxRecord(
            id=sandbox_id, config=config, created_at=time.time_ns(), pool="default"
        )
        return sandbox_id

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        self._called("stop_pod_sandbox", sandbox_id)
        self.pods[sandbox_id] = replace(self.pods[sandbox_id], state="notready")

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        self._called("remove_pod_sandbox", sandbox_id)
        self.pods.pop(sandbox_id, None)
        self.containers = {k: v for k, v in self.containers.items() if v.sandbox_id != sandbox_id}

    async def pod_sandbox_status(self, sandbox_id: str) -> SandboxRecord:
        return self.pods[sandbox_id]

    async def list_pod_sandboxes(self, *_: Any, **__: Any) -> Iterable[SandboxRecord]:
        return self.pods.values()

    async def create_container(
        self, sandbox_id: str, config: ContainerConfig, _: SandboxConfig | None
    ) -> str:
        self._called("create_container")
        self.configs.append(config)
        container_id = f"{0xA0 + len(self.containers):02x}" * 32
        self.containers[container_id] = ContainerRecord(
            id=container_id,
            sandbox_id=sandbox_id,
            config=config,
            image_id=IMAGE.id,
            image_ref=IMAGE.id,
            image_name="registry.test/busybox:1",
            created_at=time.time_ns(),
            log_path=os.path.join(self.pods[sandbox_id].config.log_directory, config.log_path),
        )
        return container_id

    async def start_container(self, container_id: str) -> None:
        self._called("start_container", container_id)
        record = self.containers[container_id]
        _write_log(Path(record.log_path), self.script)
        self.containers[container_id] = replace(record, state="running", started_at=time.time_ns())
        self.running.set()
        if self.script.exit_code is not None:
            self._exit(container_id, self.script.exit_code, self.script.reason)

    def _exit(self, container_id: str, code: int, reason: str) -> None:
        self.containers[container_id] = replace(
            self.containers[container_id],
            state="exited",
            exit_code=code,
            reason=reason,
            finished_at=time.time_ns(),
        )

    async def stop_container(self, container_id: str, timeout_s: int) -> None:
        self._called("stop_container", container_id, timeout_s)
        if self.containers[container_id].state == "running":
            self._exit(container_id, 143, "Error")

    async def container_status(self, container_id: str) -> ContainerRecord:
        return self.containers[container_id]

    async def list_containers(
        self, container_id: str = "", sandbox_id: str = "", *_: Any, **__: Any
    ) -> Iterable[ContainerRecord]:
        return [c for c in self.containers.values() if not sandbox_id or c.sandbox_id == sandbox_id]

    async def pod_containers(self, sandbox_id: str) -> Iterable[ContainerRecord]:
        return await self.list_containers(sandbox_id=sandbox_id)

    async def exec(self, container_id: str, command: Sequence[str], streams: Streams) -> str:
        """Runs `command` on this machine."""
        self._called("exec", container_id, tuple(command), streams)
        return self._offered(streams, Opener(*command, tty=streams.tty), attach=False)

    async def attach(self, container_id: str, streams: Streams) -> str:
        """As if the container ran `attached`."""
        self._called("attach", container_id, streams)
        return self._offered(streams, Opener(*self.attached, tty=streams.tty), attach=True)

    def _offered(self, streams: Streams, opener: Opener, *, attach: bool) -> str:
        assert self.streams
        self.opener = opener
        offer = self.streams.offer_attach if attach else self.streams.offer_exec
        return offer(
            opener, tty=streams.tty, stdin=streams.stdin, stdout=streams.stdout, stderr=streams.stderr
        )

    async def list_images(self, image: str = "") -> Iterable[Image]:
        return self.images.values()

    async def image_status(self, image: str) -> Image | None:
        return self.images.get(image)

    async def image_info(self, image_id: str) -> Mapping[str, object]:
        return {"imageSpec": {"config": {"User": "7"}}}

    async def remove_image(self, image: str) -> None:
        self._called("remove_image", image)
        del self.images[image]

    async def list_pools(self) -> Iterable[tuple[ProfileShape, PoolShape]]:
        report = PoolStatistics("default", 8, 7, 1, 3, 40, 2, 1, 0, 125.0)
        broken = PoolStatistics("node", 2, 0, 0, 0, 0, 0, 0, 5, 0.0, "clone: EPERM")
        return [(Profile("default"), report), (Profile("node", host_network=True), broken)]

    async def list_policies(self) -> Iterable[PolicyReport]:
        def report(name: str, masked: str, containers: int) -> PolicyReport:
            strict = name == "strict"
            return PolicyReport(
                name=name,
                digest="ab" * 32,
                is_default=strict,
                can_unmask=not strict,
                masked_paths=(masked,),
                readonly_paths=("/proc/sys", "/proc/irq"),
                capabilities=("CHOWN", "KILL"),
                no_new_privs=strict,
                containers=containers,
                handlers=("", "phantom") if strict else (),
            )

        return [report("default", "/proc/kcore", 0), report("strict", "/proc/kallsyms", 3)]

    async def show_plan(self, container_id: str) -> PlanReport:
        """Of a container whose arguments want to play with the terminal."""
        self._called("show_plan", container_id)
        ops = (PlannedOp("PIVOT", "pivot into the root"), PlannedOp("EXEC", "exec sh -c a\nb\x1b[2J ü"))
        facts = (("user", "7:7"), ("pid namespace", "its own"))
        return PlanReport(
            container_id, self.containers[container_id].sandbox_id, self.plan_is_sent, ops, facts
        )

    async def list_pod_starts(self, sandbox_id: str) -> Iterable[tuple[SandboxRecord, Mapping[str, int]]]:
        pods = [pod for pod in self.pods.values() if pod.id.startswith(sandbox_id)]
        return [(pod, {"run claim": 210_000, "run total": 2_500_000}) for pod in pods]

    async def pull_with_progress(
        self, spec: ImageSpec, auth: AuthConfig | None, report: LayerReport
    ) -> Image:
        self._called("pull", spec.image)
        self.pulled_with = auth
        report(LAYER, "downloading", 500, 1000)
        await asyncio.sleep(0)
        report(LAYER, "done", 1000, 1000)
        if spec.image not in self.remote:
            raise NotFound(f"{spec.image}: not found in the registry")
        self.images[spec.image] = self.remote[spec.image]
        return self.remote[spec.image]

    async def load_image(self, path: str, report: LayerReport) -> Iterable[Image]:
        self._called("load", path)
        report(LAYER, "exists", 0, 0)
        return [IMAGE]

    async def doctor(self) -> Iterable[CheckShape]:
        return self.checks


def _write_log(path: Path, script: Script) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [(stream, line) for stream, text in script.lines for line in text.splitlines(keepends=True)]
    stamp = "2026-01-02T03:04:05.000000006Z"
    whole = ((stream, "F" if line.endswith("\n") else "P", line.rstrip("\n")) for stream, line in lines)
    path.write_text("".join(f"{stamp} {stream} {tag} {text}\n" for stream, tag, text in whole))


@asynccontextmanager
async def serving(verbs: FakeDaemon, path: Path) -> AsyncIterator[str]:
    """The address of a server over `verbs`."""
    everything: Any = verbs
    calls = Calls(Metrics(), NoTracing())
    async with cri_server(path, everything, everything, calls, node=everything, grace_s=0):
        yield f"unix://{path}"


class Outcome(Record, frozen=True):
    code: int
    out: str
    err: str


async def phantom(host: str, *arguments: str, stdin: bytes = b"") -> Outcome:
    """Run the command to its end."""
    process = await start_phantom(host, *arguments)
    out, err = await asyncio.wait_for(process.communicate(stdin), 30)
    return Outcome(process.returncode or 0, out.decode(), err.decode())


async def start_phantom(host: str, *arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    environment = {**os.environ, "PHANTOM_HOST": host}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "phantom_cri.cli",
        *arguments,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env=environment,
    )

"""The acquiring verbs as they are run once for each fault: what comes before, the verb, and its undoing."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from harness.image import ImageConfig
from phantom_cri import codec
from phantom_cri.fragments.handle import FragmentHandle
from phantom_cri.lifecycle import node_fragments
from phantom_cri.lifecycle.cleanup import give_up_preparation, release_cgroup
from phantom_cri.model import (
    Capabilities,
    ContainerSecurity,
    ExecResult,
    IdMapping,
    ImageSpec,
    Mount,
    NamespaceOptions,
    PortMapping,
    Resources,
    SandboxConfig,
    SandboxSecurity,
    SecurityProfile,
)
from tests.e2e.faults.bed import Bed

ALL_OF_IT = ContainerSecurity(
    namespaces=NamespaceOptions(pid="container"),
    capabilities=Capabilities(add=("NET_ADMIN",), drop=("CHOWN",)),
    run_as_user=33,
    supplemental_groups=(1, 2),
    readonly_rootfs=True,
    no_new_privs=True,
    seccomp=SecurityProfile(),
    masked_paths=("/proc/kcore", "/proc/keys"),
    readonly_paths=("/proc/sys",),
)


MAPPING = (IdMapping(host_id=100_000, container_id=0, length=65_536),)
OWN_IDS = NamespaceOptions(pid="container", user="pod", uids=MAPPING, gids=MAPPING)


@dataclass
class Scenario:
    """`prepare` and `finish` run without faults; `act` is the request, `again` the same after it failed."""

    bed: Bed

    variant_of: ClassVar[type[Scenario] | None] = None
    """Every day only the calls that this other one does not make fail; the long run lets all of them fail."""

    slow: ClassVar[bool] = False
    """Its calls are too many to let each fail every day."""

    async def prepare(self) -> Any:
        return None

    async def act(self, thing: Any) -> Any:
        raise NotImplementedError

    async def again(self, thing: Any) -> Any:
        return await self.act(thing)

    async def was_done(self, thing: Any) -> bool:
        """Whether a request whose caller has left was carried out all the same, where it may be."""
        return False

    async def finish(self, thing: Any, result: Any) -> None:
        """Check what the request made, and take it away again."""


class ColdPod(Scenario):
    fields: dict[str, Any] = {"sysctls": {"kernel.msgmax": "4096"}}

    async def prepare(self) -> SandboxConfig:
        return self.bed.pod(**self.fields)

    async def act(self, thing: SandboxConfig) -> str:
        return await self.bed.verbs.run_pod_sandbox(thing, "")

    async def finish(self, thing: SandboxConfig, result: str) -> None:
        record = await self.bed.verbs.pod_sandbox_status(result)
        assert (record.state, record.config, len(record.ips)) == ("ready", thing, 2)
        folder = Path(self.bed.runtime.records.pod_folder(result))
        assert (folder / "hostname").read_text() == f"{record.hostname}\n"
        assert all(ip in (folder / "hosts").read_text() for ip in record.ips)
        await self.bed.verbs.remove_pod_sandbox(result)


class WarmPod(ColdPod):
    """A fault costs the warm fragment, half a pod as it may be: the next request is a cold start."""

    async def prepare(self) -> SandboxConfig:
        await self.bed.empty_pool()
        await self.bed.warm_up()
        return await super().prepare()

    async def finish(self, thing: SandboxConfig, result: str) -> None:
        await super().finish(thing, result)
        await self.bed.empty_pool()


class HostPorts(ColdPod):
    variant_of = ColdPod
    fields = {
        "port_mappings": (
            PortMapping(container_port=80, host_port=18080),
            PortMapping(protocol="udp", container_port=53, host_port=18053),
        )
    }

    async def again(self, thing: SandboxConfig) -> str:
        assert self.bed.host_ports() == []
        return await self.act(thing)

    async def finish(self, thing: SandboxConfig, result: str) -> None:
        assert len(self.bed.host_ports()) == 2, "one map for IPv4, one for IPv6"
        await super().finish(thing, result)
        assert self.bed.host_ports() == []


class Birth(Scenario):
    async def act(self, thing: None) -> FragmentHandle:
        return await node_fragments.spawn(self.bed.runtime, self.bed.runtime.profiles[0])

    async def finish(self, thing: None, result: FragmentHandle) -> None:
        assert await result.check()
        await node_fragments.end(self.bed.runtime, result)


class CreateContainer(Scenario):
    async def prepare(self) -> tuple[str, Any]:
        return await self.bed.run_pod(), self.bed.container()

    async def act(self, thing: tuple[str, Any]) -> str:
        return await self.bed.verbs.create_container(*thing, None)

    async def finish(self, thing: tuple[str, Any], result: str) -> None:
        await self.bed.verbs.start_container(result)
        await self.bed.verbs.remove_pod_sandbox(thing[0])


class CreateWithVolumes(CreateContainer):
    variant_of = CreateContainer

    async def prepare(self) -> tuple[str, Any]:
        config = self.bed.container("cat /data/l > /more/copy", image=ImageSpec(image=self.bed.volume_image))
        return await self.bed.run_pod(), config

    async def finish(self, thing: tuple[str, Any], result: str) -> None:
        await self.bed.verbs.start_container(result)
        container = self.bed.runtime.records.container(result)
        await container.exited.wait()
        assert container.record.exit_code == 0, "the volume has what the image has there"
        await self.bed.verbs.remove_pod_sandbox(thing[0])


class StartPrepared(Scenario):
    """A container whose start failed is over; the kubelet makes another one."""

    security = ALL_OF_IT

    async def prepare(self) -> list[str]:
        namespaces = self.security.namespaces
        pod = await self.bed.run_pod(security=SandboxSecurity(namespaces=namespaces))
        return [pod, await self._create(pod)]

    def fields(self) -> dict[str, Any]:
        source = self.bed.daemon.folder / "mounted"
        source.mkdir(exist_ok=True)
        ids = self.security.namespaces
        mount = Mount(
            container_path="/mnt", host_path=str(source), uid_mappings=ids.uids, gid_mappings=ids.gids
        )
        return {
            "mounts": (mount,),
            "working_dir": "/data",
            "security": self.security,
            "resources": Resources(memory_limit=64 << 20, oom_score_adj=100),
        }

    async def _create(self, pod: str) -> str:
        config = self.bed.container(**self.fields())
        container_id = await self.bed.verbs.create_container(pod, config, None)
        await self.bed.prepared(container_id)
        return container_id

    async def act(self, thing: list[str]) -> None:
        await self.bed.verbs.start_container(thing[1])

    async def again(self, thing: list[str]) -> None:
        record = await self.bed.verbs.container_status(thing[1])
        if record.state == "exited":
            assert (record.exit_code, record.reason) == (128, "StartError"), record
            assert record.message
            await self.bed.verbs.remove_container(thing[1])
            thing[1] = await self._create(thing[0])
        if record.state != "running":
            await self.act(thing)

    async def was_done(self, thing: list[str]) -> bool:
        return (await self.bed.verbs.container_status(thing[1])).state == "running"

    async def finish(self, thing: list[str], result: None) -> None:
        record = await self.bed.verbs.container_status(thing[1])
        assert record.state == "running"
        answer = await self.bed.verbs.exec_sync(thing[1], ["ls", "-d", "/mnt"], 10)
        assert (answer.exit_code, answer.stdout) == (0, b"/mnt\n"), answer
        await self.bed.verbs.remove_pod_sandbox(thing[0])


class StartUnprepared(StartPrepared):
    """The whole way at the start, as when the preparation failed or a daemon has come back since."""

    async def _create(self, pod: str) -> str:
        container_id = await super()._create(pod)
        runtime = self.bed.runtime
        container = runtime.records.container(container_id)
        await give_up_preparation(runtime.records.pod(pod), container)
        await release_cgroup(runtime, container)
        return container_id


class StartInUserNamespace(StartUnprepared):
    security = codec.replace(ALL_OF_IT, namespaces=OWN_IDS)


class InContainer(Scenario):
    async def prepare(self) -> tuple[str, str]:
        pod = await self.bed.run_pod()
        return pod, await self.bed.run_container(pod)

    async def finish(self, thing: tuple[str, str], result: Any) -> None:
        assert (await self.bed.verbs.container_status(thing[1])).state == "running"
        await self.bed.verbs.remove_pod_sandbox(thing[0])


class ExecSync(InContainer):
    async def act(self, thing: tuple[str, str]) -> ExecResult:
        return await self.bed.verbs.exec_sync(thing[1], ["sh", "-c", "echo out; echo err >&2; exit 3"], 10)

    async def finish(self, thing: tuple[str, str], result: ExecResult) -> None:
        assert result == ExecResult(stdout=b"out\n", stderr=b"err\n", exit_code=3)
        await super().finish(thing, result)


class LongExec(InContainer):
    """What a caller that goes away leaves behind: a command that would go on for long."""

    async def act(self, thing: tuple[str, str]) -> ExecResult:
        return await self.bed.verbs.exec_sync(thing[1], ["sh", "-c", "sleep 0.05 & sleep 0.05"], 10)


class UpdateResources(InContainer):
    change = Resources(memory_limit=64 << 20, cpu_shares=512, cpu_quota=50_000, cpu_period=100_000)

    async def act(self, thing: tuple[str, str]) -> None:
        await self.bed.verbs.update_container_resources(thing[1], self.change, {})

    async def finish(self, thing: tuple[str, str], result: None) -> None:
        record = await self.bed.verbs.container_status(thing[1])
        assert record.resources.memory_limit == 64 << 20
        await super().finish(thing, result)


class ReopenLog(InContainer):
    async def act(self, thing: tuple[str, str]) -> None:
        record = await self.bed.verbs.container_status(thing[1])
        with contextlib.suppress(FileNotFoundError):
            os.unlink(record.log_path)
        await self.bed.verbs.reopen_container_log(thing[1])

    async def finish(self, thing: tuple[str, str], result: None) -> None:
        record = await self.bed.verbs.container_status(thing[1])
        assert os.path.exists(record.log_path)  # noqa: ASYNC240
        await super().finish(thing, result)


class LoadImage(Scenario):
    """Two layers, of which one is there already. What was fetched for a caller that left is kept."""

    async def prepare(self) -> Path:
        archive = self.bed.daemon.folder / "loaded.tar"
        if not archive.exists():
            self.bed.archive("loaded", ImageConfig(labels={"of": "this test"}), {"data/more": "more\n"})
            shutil.rmtree(self.bed.daemon.folder / "loaded")
        return archive

    async def act(self, thing: Path) -> str:
        (image_id,) = await self.bed.runtime.images.load(thing)
        return image_id

    async def was_done(self, thing: Path) -> bool:
        return True

    async def finish(self, thing: Path, result: str) -> None:
        layers = self.bed.runtime.images.layers(result)
        assert (Path(layers[0]) / "data/more").read_text() == "more\n"
        await self.bed.runtime.images.remove(result)


class PullImage(LoadImage):
    variant_of = LoadImage
    reference = ""

    async def prepare(self) -> Path:
        return Path()

    async def act(self, thing: Path) -> str:
        return await self.bed.runtime.images.pull(ImageSpec(image=self.reference))

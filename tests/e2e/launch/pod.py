"""A pod without a daemon: a real fragment, real cgroups, a root unpacked from Debian's busybox."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

from phantom_cri import codec, fragments, plans, requests
from phantom_cri.cgroups import Cgroups, LaunchFds
from phantom_cri.fragments import Exit, FragmentClient, Started
from phantom_cri.model import (
    CapabilitySets,
    CompiledPolicy,
    ContainerConfig,
    ContainerMetadata,
    ContainerSecurity,
    ImageConfig,
    ImageSpec,
    Mount,
    NamespaceOptions,
    Resources,
    User,
)
from phantom_cri.plans import CgroupView, ContainerSpec, OverlayRoot
from phantom_cri.requests import Resolved, Surroundings
from phantom_cri.requests.mounts import binds

OWN = plans.CLONE_NEWNS | plans.CLONE_NEWPID | plans.CLONE_NEWUTS | plans.CLONE_NEWIPC | plans.CLONE_NEWNET
# CHOWN to SETFCAP without what is dropped by default elsewhere: Docker's fourteen.
USUAL_CAPABILITIES = 0xA80425FB
EVERYTHING = int(Path("/proc/self/status").read_text().split("CapBnd:")[1].split()[0], 16)
UNLIMITED = CompiledPolicy(capabilities=CapabilitySets(EVERYTHING, EVERYTHING, EVERYTHING))
USUAL = CompiledPolicy(
    capabilities=CapabilitySets(USUAL_CAPABILITIES, USUAL_CAPABILITIES, USUAL_CAPABILITIES),
    masked_paths=("/proc/kcore", "/proc/keys", "/sys/firmware", "/not/there"),
    readonly_paths=("/proc/sys", "/proc/bus"),
)
IMAGE = ImageConfig(cmd=("/bin/sh",), env=("PATH=/usr/bin:/bin",))


def config(script: str = "", *, security: dict[str, Any] | None = None, **fields: Any) -> ContainerConfig:
    """A container that runs a shell script."""
    made: dict[str, Any] = {
        "metadata": ContainerMetadata(name="c"),
        "image": ImageSpec(image="busybox"),
        "command": ("sh", "-c", script),
        "security": ContainerSecurity(**(security or {})),
    }
    return ContainerConfig(**(made | fields))


def mount(source: str, target: str, **fields: Any) -> Mount:
    return Mount(container_path=target, host_path=source, **fields)


def own_pids(**more: Any) -> dict[str, Any]:
    return {"namespaces": NamespaceOptions(pid="container"), **more}


class Pod:
    """What a test has: run containers, exec into them, wait for their exits."""

    def __init__(self, folder: Path, rootfs: Path, cgroups: Cgroups, spawned: fragments.Spawned) -> None:
        self.folder, self.rootfs, self.cgroups, self.spawned = folder, rootfs, cgroups, spawned
        self.cgroup = f"/phantom-launch-{secrets.token_hex(4)}"
        self.events: list[fragments.Event] = []
        self.modes = NamespaceOptions()
        self.reaped = False
        self._seen = asyncio.Event()
        self._groups: list[str] = []
        self._host_mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._fds: list[int] = [self._host_mounts]
        self.fragment = self.connect()

    def connect(self) -> FragmentClient:
        return FragmentClient.connect(str(self.folder / fragments.SOCKET), self._event)

    def _event(self, event: fragments.Event) -> None:
        self.events.append(event)
        self._seen.set()

    async def wait(self, process_id: str) -> Exit:
        async with asyncio.timeout(10):
            while True:
                for event in self.events:
                    if isinstance(event, fragments.Exited) and event.process_id == process_id:
                        return event.exit
                self._seen.clear()
                await self._seen.wait()

    def log(self, container_id: str) -> list[str]:
        """What the container wrote, without the CRI log's time, stream and tag."""
        lines = (self.folder / f"{container_id}.log").read_text().splitlines()
        return [line.split(" ", 3)[3] for line in lines]

    def request(self, container_id: str, asked: ContainerConfig, **given: Any) -> ContainerSpec:
        """`given`: of the container's surroundings."""
        layer = self.folder / container_id
        for name in ("upper", "work"):
            (layer / name).mkdir(parents=True)
        made: dict[str, Any] = {
            "user": User(groups=(0,)),
            "root": OverlayRoot((str(self.rootfs),), str(layer / "upper"), str(layer / "work")),
            "policy": USUAL,
            "pod": self.modes,
            "cgroup_view": self._view(f"{self.cgroup}/{container_id}"),
        }
        process = requests.merged(asked, IMAGE, hostname="pod", home="/root")
        resolved = Resolved(asked, process, binds(asked), (), requests.resolve_devices(asked))
        return requests.container_spec(resolved, Surroundings(**(made | given)))

    def _view(self, group: str) -> CgroupView:
        if self.cgroups.version == "v2":
            return CgroupView()
        trees = [tree.root for tree in self.cgroups.trees]
        return CgroupView(tuple((os.path.basename(root), root + group) for root in trees))

    def upper(self, container_id: str) -> Path:
        """What it has written, and whatever a test puts there before its start."""
        return self.folder / container_id / "upper"

    async def start(
        self,
        container_id: str,
        asked: ContainerConfig | ContainerSpec,
        *,
        lent: Mapping[str, int] | None = None,
        **fields: Any,
    ) -> Started:
        """`lent`: more fds for the plan, by name."""
        made = self.request(container_id, asked, **fields) if isinstance(asked, ContainerConfig) else asked
        group = f"{self.cgroup}/{container_id}"
        self.cgroups.create(group, Resources(), None)
        self._groups.append(group)
        log = str(self.folder / f"{container_id}.log")
        with plans.Donations() as donations, self.cgroups.launch_fds(group) as fds:
            donations.lend("host_mounts", self._host_mounts)
            _lend(donations, fds)
            donations.open("log", log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for name, fd in (lent or {}).items():
                donations.lend(name, fd)
            plan = plans.container_plan(made, donations.names())
            started = await self.fragment.start(container_id, plan, donations)
        self._fds += [fd for fd in (started.pidfd, started.console) if fd >= 0]
        return started

    async def run(
        self, container_id: str, asked: ContainerConfig | ContainerSpec, **fields: Any
    ) -> tuple[Exit, list[str]]:
        """Start, wait, and read the log."""
        await self.start(container_id, asked, **fields)
        exit = await self.wait(container_id)
        return exit, self.log(container_id)

    async def exec(self, container_id: str, *command: str, **fields: Any) -> tuple[int, str]:
        """Run a command in a container: exit code, and stdout and stderr together."""
        exec_id = f"exec-{secrets.token_hex(8)}"
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self._fds.append(reader)
        process = requests.merged(config("true"), IMAGE, hostname="pod", home="/root")
        made: dict[str, Any] = {
            "container_id": container_id,
            "process": codec.replace(process, args=command),
            "user": User(groups=(0,)),
            "policy": USUAL,
        }
        with plans.Donations() as donations, self.cgroups.launch_fds(f"{self.cgroup}/{container_id}") as fds:
            _lend(donations, fds)
            donations.give("stdout", writer)
            donations.lend("stderr", writer)
            plan = plans.exec_plan(plans.ExecLaunch(**(made | fields)), donations.names())
            started = await self.fragment.start(exec_id, plan, donations)
        os.close(started.pidfd)
        exit = await self.wait(exec_id)
        return exit.code, os.read(reader, 65536).decode()

    def forget_fd(self, fd: int) -> None:
        """A test closed it."""
        self._fds.remove(fd)

    async def close(self) -> None:
        with contextlib.suppress(fragments.FragmentLost):
            await self.fragment.shutdown()
        self.fragment.close()
        if not self.reaped:
            await asyncio.to_thread(os.waitid, os.P_PIDFD, self.spawned.pidfd, os.WEXITED)
        for fd in (*self._fds, self.spawned.pidfd):
            os.close(fd)
        for group in (*self._groups, self.cgroup):
            await self.cgroups.remove_async(group)


def _lend(donations: plans.Donations, fds: LaunchFds) -> None:
    for name, fd in (("cgroup", fds.clone_into), ("kill", fds.kill), ("oom", fds.oom)):
        if fd is not None and fd >= 0:
            donations.lend(name, fd)
    for index, fd in enumerate(fds.procs):
        donations.lend(f"procs{index}", fd)


@contextlib.asynccontextmanager
async def running_pod(
    folder: Path, rootfs: Path, cgroups: Cgroups, *, flags: int = OWN, modes: NamespaceOptions | None = None
) -> AsyncIterator[Pod]:
    spawned = await fragments.spawn(str(folder), flags)
    pod = Pod(folder, rootfs, cgroups, spawned)
    pod.modes = modes or NamespaceOptions()
    try:
        await pod.fragment.hello()
        await pod.fragment.adopt(plans.spawn_plan(), None)
        hostname = "pod" if flags & plans.CLONE_NEWUTS else None
        await pod.fragment.adopt(plans.claim_plan(hostname, {}), claim=True)
        yield pod
    finally:
        await pod.close()


def text_of(path: str | Path) -> str:
    return Path(path).read_text()


def open_fds() -> Iterator[str]:
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            yield os.readlink(f"/proc/self/fd/{name}")

"""A whole node in the test's own process, on private paths, and what it has of everything at a moment."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from harness.cgroups import groups_below
from harness.daemon import Daemon
from harness.host import mounts_below
from harness.image import ImageConfig, LayerBuilder, busybox_layer, write_layout
from harness.tools import tool
from phantom_cri import codec, config
from phantom_cri.__main__ import compose, leave
from phantom_cri.daemon import user_namespaces
from phantom_cri.daemon.recover import recover
from phantom_cri.lifecycle.live import Container
from phantom_cri.lifecycle.runtime import Runtime
from phantom_cri.lifecycle.statistics import statistics
from phantom_cri.lifecycle.verbs import PodVerbs
from phantom_cri.model import (
    ContainerConfig,
    ContainerMetadata,
    ContainerSecurity,
    ImageSpec,
    NamespaceOptions,
    PortMapping,
    SandboxConfig,
    SandboxMetadata,
)
from phantom_cri.network.builtin import BuiltinNetwork
from phantom_cri.telemetry.metrics import Metrics
from phantom_cri.telemetry.tracing import NoTracing

T = TypeVar("T")

SETTLING = 8.0
"""Seconds within which what a failed verb left to the background must be gone."""

Traces = dict[str, Counter[str]]


class Bed:
    """The composed node, and pods and containers on it in a few words."""

    def __init__(self, folder: Path) -> None:
        self.daemon = Daemon(
            folder,
            {
                "pools": [{"name": "default", "size": 0}],
                "cdi": {"spec_dirs": [str(folder / "cdi")]},
                "checkpoint": {"criu": str(tool("criu"))},
            },
        )
        self.runner = asyncio.Runner()
        self.runtime: Runtime
        self.verbs: PodVerbs
        self.image = ""
        self.volume_image = ""
        self._names = itertools.count()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self.runner.get_loop()

    async def start(self) -> None:
        self.daemon.registries.mkdir(parents=True)
        path = self.daemon.folder / "config.yaml"
        path.write_text(yaml.safe_dump(self.daemon.config))
        self.runtime = await compose(config.load(["--config", str(path)]), Metrics("test"), NoTracing())
        self.verbs = PodVerbs(self.runtime)
        await recover(self.runtime)
        await self.runtime.streams.start()
        self.runtime.userns_unavailable = await user_namespaces.unavailable_reason(self.runtime)
        self.image = await self.load("plain", ImageConfig())
        self.volume_image = await self.load("volumes", ImageConfig(volumes=["/data", "/more"]))
        await self._use_once()

    async def _use_once(self) -> None:
        """What is made once for all pods (a memfd, sockets, caches) shall not look like a leak."""
        tcp = PortMapping(container_port=1, host_port=18001)
        pod = await self.run_pod(port_mappings=(tcp, codec.replace(tcp, protocol="udp")))
        container = await self.run_container(pod)
        await self.verbs.exec_sync(container, ["true"], 10)
        await self.verbs.remove_pod_sandbox(pod)

    async def load(self, name: str, image: ImageConfig) -> str:
        (image_id,) = await self.runtime.images.load(self.archive(name, image))
        return image_id

    def archive(self, name: str, image: ImageConfig, files: dict[str, str] | None = None) -> Path:
        """An OCI archive of busybox with a folder /data."""
        layout = self.daemon.folder / name
        own = (
            LayerBuilder()
            .directory("data")
            .file("data/content", "of the image\n")
            .symlink("data/l", "content")
        )
        for path, content in (files or {}).items():
            own.file(path, content)
        write_layout(layout, [busybox_layer(), own.finish()], image)
        with tarfile.open(layout.with_suffix(".tar"), "w") as archive:
            archive.add(layout, "")
        return layout.with_suffix(".tar")

    async def stop(self) -> None:
        await self.remove_pods()
        for pool in self.runtime.pools.values():
            await pool.stop()
        await self.runtime.streams.close()
        await leave(self.runtime, serves_containerd=False)
        os.close(self.runtime.host_mounts)

    # --- what tests ask of it ---------------------------------------------

    def pod(self, **fields: Any) -> SandboxConfig:
        name = f"pod{next(self._names)}"
        logs = str(self.daemon.folder / "logs" / name)
        return SandboxConfig(metadata=SandboxMetadata(name=name), log_directory=logs, **fields)

    def container(self, script: str = "sleep 1000", **fields: Any) -> ContainerConfig:
        name = f"c{next(self._names)}"
        made: dict[str, Any] = {
            "image": ImageSpec(image=self.image),
            "command": ("sh", "-c", script),
            "log_path": f"{name}.log",
            "security": ContainerSecurity(namespaces=NamespaceOptions(pid="container")),
        }
        return ContainerConfig(metadata=ContainerMetadata(name=name), **(made | fields))

    async def remove_pods(self) -> None:
        for pod in list(self.runtime.records.pods):
            await self.verbs.remove_pod_sandbox(pod)

    async def run_pod(self, **fields: Any) -> str:
        return await self.verbs.run_pod_sandbox(self.pod(**fields), "")

    async def prepared(self, container_id: str) -> None:
        """Wait for what is prepared ahead, well or not."""
        container = self.runtime.records.containers[container_id]
        if container.preparation is not None:
            await asyncio.wait([container.preparation])

    async def run_container(self, sandbox_id: str, script: str = "sleep 1000") -> str:
        container_id = await self.verbs.create_container(sandbox_id, self.container(script), None)
        await self.verbs.start_container(container_id)
        return container_id

    async def warm_up(self, members: int = 1) -> None:
        """Put `members` into the pool, which never refills by itself here."""
        pool = self.runtime.pools["default"]
        for _ in range(members):
            assert await pool.spawn_one(), pool.last_error

    async def empty_pool(self) -> None:
        await self.runtime.pools["default"].stop()

    # --- traces -----------------------------------------------------------

    def traces(self) -> Traces:
        """How many there are of each thing that a failed verb could leave behind."""
        runtime, folder = self.runtime, self.daemon.folder
        now = statistics(runtime)
        (pool,) = now.pools
        return {
            "fds": Counter(_open_files(folder)),
            **_of_fragments(),
            "files": Counter(_files(self.daemon.state)) + Counter(_files(self.daemon.root)),
            "cgroups": Counter(str(group) for group in groups_below(self.daemon.cgroup)),
            "mounts": Counter(mounts_below(folder)),
            "tasks": Counter(_tasks()),
            "in memory": Counter(
                pods=now.records.pods,
                containers=now.records.containers,
                names=now.records.names,
                claimed=pool.claimed,
                warm=pool.warm,
                ports=now.network.host_ports,
                attachments=now.network.attachments,
                holds=now.images.holds,
                urls=now.streaming.urls,
                connections=now.streaming.connections,
                frozen=sum(map(self._is_frozen, runtime.records.containers.values())),
                pulls=now.images.pulls + now.images.awaited,
                blobs=now.images.writing,
                requests=now.fragments.requests + now.fragments.unsent,
                clients=now.fragments.attached,
                exits=now.fragments.execs + now.fragments.early_exits,
                jobs=now.cgroups.jobs,
                sleepers=now.cgroups.sleepers,
                levels=now.policy.selinux_levels,
            ),
        }

    def _is_frozen(self, container: Container) -> bool:
        folder = self.runtime.cgroups.freezer.folder(container.record.cgroup)
        for name, text in (("freezer.state", "FROZEN"), ("cgroup.freeze", "1")):
            with contextlib.suppress(FileNotFoundError):
                return Path(folder, name).read_text().strip() == text
        return False

    async def left_since(self, before: Traces) -> str:
        """What there is more of than `before`, once it no longer goes away: "" if nothing is."""
        return await self._settled(lambda: self._changes(before, lambda change: change > 0))

    async def changed_since(self, before: Traces) -> str:
        """What there is more or less of, once it no longer changes back."""
        return await self._settled(lambda: self._changes(before, bool))

    async def _settled(self, changes: Callable[[], str]) -> str:
        """The kernel takes a moment for some things, and tells nobody when it is done with them."""
        deadline = time.monotonic() + SETTLING
        while (left := changes()) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        return left

    def _changes(self, before: Traces, counts: Callable[[int], bool]) -> str:
        now = self.traces()
        return "; ".join(
            f"{room}: {now[room][name] - earlier[name]:+d} {name}"
            for room, earlier in before.items()
            for name in sorted(now[room].keys() | earlier.keys())
            if counts(now[room][name] - earlier[name])
        )

    def links(self) -> list[str]:
        """The host's ends of pods' links: the kernel takes them away in its own time."""
        return [name for name in os.listdir("/sys/class/net") if name.startswith(self.network.link_prefix)]

    def host_ports(self) -> list[str]:
        """What is in the maps of our table."""
        table = ["nft", "list", "table", "inet", f"phantom_{self.daemon.bridge}"]
        done = subprocess.run(table, capture_output=True, text=True, check=True)
        return [line.strip() for line in done.stdout.splitlines() if "elements" in line]

    def addresses_in_use(self) -> int:
        return statistics(self.runtime).network.addresses

    @property
    def network(self) -> BuiltinNetwork:
        assert isinstance(self.runtime.network, BuiltinNetwork)
        return self.runtime.network


class Process(NamedTuple):
    name: str
    parent: int


def fragments() -> set[int]:
    """Pids of this process's fragments, dead ones that are not reaped too."""
    return _fragments_of(_processes())


def _fragments_of(processes: Mapping[int, Process]) -> set[int]:
    mine = {pid: one for pid, one in processes.items() if one.parent == os.getpid()}
    return {pid for pid, one in mine.items() if one.name.startswith("fragment")}


def _processes() -> dict[int, Process]:
    """Every process; its name is in parentheses and may hold any byte (proc_pid_stat(5))."""
    found = {}
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, IndexError):
            if name.isdigit():
                before, _, after = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")
                found[int(name)] = Process(before.partition("(")[2], int(after.split()[1]))
    return found


def _of_fragments() -> Traces:
    """The fragments of this process, what they hold together, and its other children."""
    processes = _processes()
    alive = _fragments_of(processes)
    held: Counter[str] = Counter(processes=sum(one.parent in alive for one in processes.values()))
    for pid in alive:
        with contextlib.suppress(OSError):
            held["fds"] += len(os.listdir(f"/proc/{pid}/fd"))
            held["mounts"] += len(Path(f"/proc/{pid}/mountinfo").read_bytes().splitlines())
    others = Counter(
        one.name for pid, one in processes.items() if one.parent == os.getpid() and pid not in alive
    )
    return {"fragments": Counter(fragments=len(alive)), "in fragments": held, "programs": others}


def _open_files(folder: Path) -> Iterator[str]:
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{number}")
            if "/root/trash" not in target:  # open while its thread empties it
                yield target.partition(":[")[0] if target.startswith(("socket:", "pipe:")) else target


def _files(top: Path) -> Iterator[str]:
    """All below `top`, but what is made ahead, kept by hash for later daemons, or waits to be deleted."""
    for path, folders, files in os.walk(top):
        folders[:] = [
            name for name in folders if not name.startswith(".spare-") and name not in ("trash", "policies")
        ]
        # The folder of exit records comes with the first of them, and is the pod's.
        yield from (os.path.join(path, name) for name in (*folders, *files) if name != "exits")


def _tasks() -> Iterator[str]:
    """Coroutines under way; the network's sweep of departed links is one that may run at any time."""
    for task in asyncio.all_tasks():
        coroutine = task.get_coro()
        name = getattr(coroutine, "__qualname__", str(coroutine))
        if task is not asyncio.current_task() and "_sweep" not in name:
            yield name

"""The runtimes that are compared, each started on private paths and taken away without a trace."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.client import CriClient
from bench.workload import PodMaker
from harness import containerd
from harness.cgroups import remove_cgroups
from harness.child import Child
from harness.containerd import Choices
from harness.daemon import Daemon
from harness.host import unmount_below
from harness.registry import serve_from
from harness.tools import tool
from phantom_cri import __version__
from phantom_cri.api.cri.v1 import api_pb2 as cri

CGROUPS = Path("/sys/fs/cgroup")


class Contender(Protocol):
    """One runtime under test."""

    name: str
    folder: Path

    def launch(self) -> Child:
        """Starts the daemon: it listens on `folder/cri.sock` and keeps its state in `folder/state`."""

    def clean(self) -> None:
        """Takes away what the daemon leaves on the host once it has ended."""

    def versions(self) -> dict[str, str]:
        """What exactly was measured."""


@dataclass(frozen=True)
class Images:
    """References on the loopback registry."""

    registry: str
    workload: str
    pause: str


def marker_of(contender: Contender) -> tuple[str, str]:
    """The environment variable that tells a contender's processes from all others."""
    return "PHANTOM_BENCH_CONTENDER", f"{contender.folder.name}-{os.getpid()}"


class Containerd:
    """containerd with one OCI runtime and the bridge CNI plugin in its cheapest form."""

    def __init__(self, folder: Path, runtime: str, number: int, images: Images):
        self.name = f"containerd + {runtime}"
        self.folder = folder
        self.images = images
        self.runtime = runtime
        choices = Choices(
            sandbox_image=images.pause,
            runtime=runtime,
            bridge=f"pfbench{number}",
            subnet=f"10.{213 + number}.0.0/16",
            prefix=hide_v2_controllers() if runtime == "crun" else (),
            environment=dict([marker_of(self)]),
        )
        self.daemon = containerd.Containerd(folder, choices)

    def launch(self) -> Child:
        serve_from(self.images.registry, self.daemon.registries, self.images.registry)
        return self.daemon.launch()

    def clean(self) -> None:
        self.daemon.clean()

    def versions(self) -> dict[str, str]:
        runtime = _first_line(tool(self.runtime), "--version")
        return {"containerd": _first_line(tool("ctr"), "--version"), self.runtime: runtime}


class Phantom:
    """phantom-cri with a pool of `pool_size` warm fragments; 0 makes every pod a cold start."""

    def __init__(self, folder: Path, name: str, pool_size: int, images: Images):
        self.name = name
        self.folder = folder
        self.images = images
        marker = dict([marker_of(self)])
        self.pool_size = pool_size
        config = {"pools": [{"name": "bench", "size": pool_size}], "log": {"level": "warning"}}
        self.daemon = Daemon(folder, config, marker)

    def launch(self) -> Child:
        return self.daemon.launch()

    def clean(self) -> None:
        """Its fragments outlive it by design; a benchmark's end is the node's end."""
        self.daemon.destroy()

    def versions(self) -> dict[str, str]:
        return {"phantom-cri": __version__}


def hide_v2_controllers() -> list[str | Path]:
    """A command prefix that lets crun run on a hybrid host; empty where it needs none.

    crun refuses hosts with v1 and v2 mounted whose v2 hierarchy has a controller (often hugetlb, which no
    pod here uses). In a mount namespace of its own it reads an empty list; the host stays as it is.
    """
    controllers = CGROUPS / "unified" / "cgroup.controllers"
    if not controllers.exists() or not controllers.read_text().strip():
        return []
    return ["unshare", "--mount", "sh", "-c", f'mount --bind /dev/null {controllers} && exec "$@"', "sh"]


def _first_line(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()


@dataclass
class Running:
    """A contender that answers, with its image pulled."""

    contender: Contender
    child: Child
    client: CriClient
    maker: PodMaker

    @property
    def marker(self) -> str:
        return "=".join(marker_of(self.contender))


@contextlib.contextmanager
def running(contender: Contender, images: Images) -> Iterator[Running]:
    """A started contender with the workload's image; afterwards its pods, daemon and traces are removed."""
    cgroup_parent = f"/{'-'.join(marker_of(contender)).lower().replace('_', '-')}"
    mount_state(contender.folder / "state")
    child = contender.launch()
    client = CriClient(contender.folder / "cri.sock")
    try:
        child.wait_for(client.ready, f"{contender.name} to be ready", timeout=60)
        client.pull(images.workload)
        maker = PodMaker(client, images.workload, contender.folder / "logs", cgroup_parent)
        try:
            yield Running(contender, child, client, maker)
        finally:
            remove_all_pods(client)
    finally:
        client.close()
        child.stop()
        contender.clean()
        unmount_below(contender.folder)
        remove_cgroups(cgroup_parent)


def mount_state(folder: Path) -> None:
    """A tmpfs, as /run is on every node; unmounted with the contender."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0711", "bench", folder], check=True)


def remove_all_pods(client: CriClient) -> None:
    for pod in client.runtime(
        "ListPodSandbox", cri.ListPodSandboxRequest(), cri.ListPodSandboxResponse
    ).items:
        client.runtime(
            "StopPodSandbox", cri.StopPodSandboxRequest(pod_sandbox_id=pod.id), cri.StopPodSandboxResponse
        )
        client.runtime(
            "RemovePodSandbox",
            cri.RemovePodSandboxRequest(pod_sandbox_id=pod.id),
            cri.RemovePodSandboxResponse,
        )

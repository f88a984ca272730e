"""The runs of critest that the tests judge: our network drivers, WebSocket streams, and containerd."""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.cni import CNI_PLUGINS, write_bridge_network
from harness.containerd import Choices, Containerd
from harness.crictl import Crictl
from harness.daemon import Daemon
from harness.host import Snapshot
from harness.registry import Registry
from tests.e2e.critest.images import REGISTRIES, SANDBOX, published
from tests.e2e.critest.suite import Report, run_critest

POOL = 4
WEBSOCKET = ("-websocket-exec", "-websocket-attach", "-websocket-portforward")


@dataclass(frozen=True)
class Run:
    """A name for people, what is under test, and which part of the suite is run how.

    lacks: words in the names of specs for a feature that it does not have.
    """

    name: str
    runtime: Literal["phantom, built-in network", "phantom, CNI", "containerd", "containerd, our shim"]
    flags: tuple[str, ...] = ()
    focus: str = ""
    lacks: str = ""

    def __str__(self) -> str:
        return self.name


BUILT_IN = Run("built-in network", "phantom, built-in network")
CNI = Run("CNI", "phantom, CNI")
WEBSOCKETS = Run("WebSocket streams", "phantom, built-in network", WEBSOCKET, "Streaming")
CONTAINERD = Run("containerd", "containerd")
SHIM = Run(
    "shim of containerd", "containerd, our shim", ("-runtime-handler", "phantom"), lacks="UserNamespaces"
)
OURS = (BUILT_IN, CNI, WEBSOCKETS, SHIM)


@dataclass(frozen=True)
class Result:
    """What critest reported, what the daemon had left on the host afterwards, and its log."""

    report: Report
    left_behind: str
    log: str


def perform(run: Run, folder: Path) -> Result:
    """Starts what is under test with files of its own, runs critest; its output is left in `folder`."""
    # Socket paths have to be short: pytest's folders are not.
    with (
        exclusive(),
        tempfile.TemporaryDirectory(prefix="pfc-") as name,
        Registry(Path(name) / "registry", storage=published()) as registry,
    ):
        # For containerd: root in a pod's user namespace is not root here, and has to reach its own root.
        Path(name).chmod(0o711)
        if run.runtime == "containerd":
            return on_containerd(run, registry, Path(name) / "d", folder)
        if run.runtime == "containerd, our shim":
            return on_shim(run, registry, Path(name), folder)
        return on_phantom(run, registry, Path(name) / "d", folder)


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """critest has host ports 12000 to 12003 compiled in: one run at a time on a machine."""
    with (Path(tempfile.gettempdir()) / "phantom-critest.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def on_phantom(run: Run, registry: Registry, home: Path, folder: Path) -> Result:
    home.mkdir()
    daemon = Daemon(home, {"pools": [{"name": "default", "size": POOL}]})
    if run.runtime == "phantom, CNI":
        conf_dir = write_bridge_network(home, daemon.bridge, "10.212.0.0/16", host_ports=True)
        daemon.config["network"] = {
            "driver": "cni",
            "cni": {"conf_dir": str(conf_dir), "bin_dirs": [str(CNI_PLUGINS)]},
        }
    registry.mirror(daemon.registries, REGISTRIES)
    with daemon:
        before = daemon.wait_pools_full().snapshot()
        report = run_critest(daemon.endpoint, folder, run.flags, focus=run.focus)
        Crictl(daemon.endpoint, home).run("rmi", "--all")
        return Result(report, left_behind(daemon, before), daemon.log_text())


def left_behind(daemon: Daemon, before: Snapshot) -> str:
    try:
        daemon.wait_for_no_traces(before)
    except AssertionError as error:
        return str(error)
    return ""


def on_shim(run: Run, registry: Registry, home: Path, folder: Path) -> Result:
    """containerd, whose handler "phantom" leads to our daemon."""
    (home / "p").mkdir()
    daemon = Daemon(home / "p", {"pools": [{"name": "default", "size": 0}], "shim": {"pool_size": 0}})
    containerd = Containerd(
        home / "d",
        Choices(
            sandbox_image=f"{REGISTRIES[0]}/{SANDBOX}",
            bridge="pfcritest1",
            subnet="10.225.0.0/16",
            host_ports=True,
            shim=daemon.folder / "shim.sock",
        ),
    )
    registry.mirror(containerd.registries, REGISTRIES)
    with daemon, containerd:
        before = daemon.snapshot()
        report = run_critest(containerd.endpoint, folder, run.flags, focus=run.focus)
        return Result(report, left_behind(daemon, before), daemon.log_text())


def on_containerd(run: Run, registry: Registry, home: Path, folder: Path) -> Result:
    choices = Choices(sandbox_image=f"{REGISTRIES[0]}/{SANDBOX}", bridge="pfcritest0", host_ports=True)
    containerd = Containerd(home, choices)
    registry.mirror(containerd.registries, REGISTRIES)
    with containerd:
        report = run_critest(containerd.endpoint, folder, run.flags, focus=run.focus)
        return Result(report, "", containerd.log.read_text(errors="replace"))

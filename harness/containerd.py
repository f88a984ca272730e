"""containerd with the bridge CNI plugin on private paths: the reference of tests and benchmarks."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from harness.cgroups import hierarchies
from harness.child import Child
from harness.cni import CNI_PLUGINS, write_bridge_network
from harness.crictl import Crictl
from harness.host import kill_below, unmount_below
from harness.tools import ROOT, tool

PHANTOM_RUNTIME = """\
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.phantom]
runtime_type = "io.containerd.phantom.v2"
"""


@dataclass(frozen=True)
class Choices:
    """The options of a containerd.

    `sandbox_image`: the image of each pod's pause container; `prefix`: put before the command.
    `run_folder`: the path of /run/containerd, if the prefix enters a mount namespace with another /run.
    `shim`: socket of the phantom-cri that is a further runtime, for ctr and as CRI's handler "phantom".
    """

    sandbox_image: str
    runtime: str = "runc"
    bridge: str = "pfpeer0"
    subnet: str = "10.211.0.0/16"
    host_ports: bool = False
    prefix: Sequence[str | Path] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    run_folder: Path = Path("/run/containerd")
    shim: Path | None = None


class Containerd:
    """A containerd with all its files below `folder`; `registries`: folder of its hosts.toml files."""

    def __init__(self, folder: Path, choices: Choices):
        self.folder = folder
        self.choices = choices
        self.socket = folder / "cri.sock"
        self.state = folder / "state"
        self.registries = folder / "certs.d"
        self.log = folder / "daemon.log"
        self.child: Child | None = None
        self._had_run_folder = choices.run_folder.exists()

    @property
    def endpoint(self) -> str:
        return f"unix://{self.socket}"

    def launch(self) -> Child:
        """Starts the program without waiting for it."""
        choices = self.choices
        write_bridge_network(self.folder, choices.bridge, choices.subnet, choices.host_ports)
        config = self.folder / "config.toml"
        config.write_text(self._config())
        command = [*choices.prefix, tool("containerd"), "--config", config, "--log-level", "warn"]
        self.child = Child(command, self.log, {**self._shims(), **choices.environment})
        return self.child

    def _shims(self) -> dict[str, str]:
        """Where it finds the shims' commands, and they what they need."""
        if self.choices.shim is None:
            return {}
        folders = (ROOT / "shim", tool("containerd-shim-runc-v2").parent, tool("runc").parent)
        path = ":".join((*map(str, folders), os.environ["PATH"]))
        return {"PATH": path, "PHANTOM_SHIM_SOCKET": str(self.choices.shim)}

    def start(self) -> Containerd:
        """Starts containerd and waits until its socket accepts connections."""
        self.launch().wait_for(self.accepts, f"{self.socket} to accept", timeout=60)
        return self

    def accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def clean(self) -> None:
        """Removes what containerd leaves on the host after its pods were removed and it has ended.

        Its cgroup for pods without a parent may be used by another containerd: it is only removed if empty.
        """
        subprocess.run(["ip", "link", "delete", self.choices.bridge], stderr=subprocess.DEVNULL, check=False)
        if not self._had_run_folder:
            shutil.rmtree(self.choices.run_folder, ignore_errors=True)
        for group in (hierarchy / "k8s.io" for hierarchy in hierarchies()):
            with contextlib.suppress(OSError):
                group.rmdir()

    def destroy(self) -> None:
        """Removes all pods, stops containerd and removes its files."""
        if self.child is not None:
            if self.child.running():
                Crictl(self.endpoint, self.folder).run("rmp", "--all", "--force")
            self.child.stop(grace=5)
        kill_below(self.state)
        self.clean()
        unmount_below(self.folder)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)

    def __enter__(self) -> Containerd:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.destroy()

    def _config(self) -> str:
        folder, runtime = self.folder, self.choices.runtime
        return f"""\
version = 4
root = "{folder}/root"
state = "{folder}/state"
imports = []
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]
[plugins.'io.containerd.server.v1.grpc']
address = "{self.socket}"
[plugins.'io.containerd.server.v1.ttrpc']
address = "{folder}/ttrpc.sock"
[plugins.'io.containerd.internal.v1.opt']
path = "{folder}/opt"
[plugins.'io.containerd.grpc.v1.cri']
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins.'io.containerd.cri.v1.images']
snapshotter = "overlayfs"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{self.choices.sandbox_image}"
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = "{self.registries}"
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = "{runtime}"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{runtime}]
runtime_type = "io.containerd.runc.v2"
runtime_path = "{tool("containerd-shim-runc-v2")}"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{runtime}.options]
BinaryName = "{tool(runtime)}"
Root = "{folder}/state/runtime"
{PHANTOM_RUNTIME if self.choices.shim else ""}
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{CNI_PLUGINS}"]
conf_dir = "{folder}/net.d"
"""

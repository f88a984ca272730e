"""The cluster: control plane, kubelet, runtime and a registry, in namespaces of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from harness.child import Child
from harness.cluster.control_plane import ControlPlane
from harness.cluster.kubectl import Kubectl, KubectlError
from harness.cluster.kubelet import NODE, Kubelet
from harness.cluster.namespaces import Namespaces
from harness.containerd import Choices, Containerd
from harness.daemon import Daemon
from harness.host import kill_below
from harness.image import PAUSE_SOURCE, ImageConfig, build_image, program_layer, write_layout
from harness.registry import Registry
from harness.tools import tool
from harness.waiting import wait_until

Runtime = Literal["phantom", "containerd"]

UPSTREAM = "registry.k8s.io"
"""The registry that the cluster's own stands in for."""

BUSYBOX = f"{UPSTREAM}/busybox:1"
PAUSE = f"{UPSTREAM}/pause:1"

RUNTIME_CLASS = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "phantom"},
    "handler": "phantom",
}


class Cluster:
    """One node on `runtime`: `phantom`, this checkout's phantom-cri, or `containerd` with runc.

    Every file lies below `folder`. Keep that short: a socket's path has at most 107 bytes. Images are what is
    pushed to `registry`, whose names begin with `UPSTREAM`; `BUSYBOX` is there. `feature_gates` are those of
    the kubelet.
    """

    def __init__(
        self, folder: Path, runtime: Runtime = "phantom", feature_gates: Mapping[str, bool] | None = None
    ):
        self.folder = folder
        self.name = runtime
        self.feature_gates = feature_gates
        self.place = Namespaces(folder / "place")
        self.plane = ControlPlane(folder / "plane", self.place)
        self.kubectl = Kubectl(self.plane.kubeconfig)
        self.address = self.place.address
        self._undo = contextlib.ExitStack()

    @property
    def kubeconfig(self) -> Path:
        return self.plane.kubeconfig

    def start(self) -> Cluster:
        """Starts everything and waits until the node is ready; undoes it all when that fails."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        self._undo.close()

    def _start(self) -> None:
        self.folder.chmod(0o711)
        self._undo.callback(self.place.stop)
        self.place.start()
        enter = self.place.enter
        self.registry = Registry(self.folder / "registry", prefix=enter)
        self._undo.callback(self.registry.stop)
        self.registry.start()
        self._undo.callback(self.plane.stop)
        self.plane.start()
        self._push_images()
        self._undo.callback(kill_below, self.folder)
        self.runtime = self._make_runtime(enter)
        self.registry.mirror(self.runtime.registries, [UPSTREAM])
        self._undo.callback(self.runtime.destroy)
        self.runtime.start()
        self.kubelet = Kubelet(self.folder / "kubelet", self.place, self.runtime.endpoint, self.feature_gates)
        self._undo.callback(self.kubelet.kill)
        self.kubelet.start(self.plane)
        self.proxy = Child([*enter, *self._proxy_command()], self.folder / "kube-proxy.log")
        self._undo.callback(self.proxy.kill)
        wait_until(self._ready, f"the node to be ready; see {self.folder}", timeout=90, interval=0.2)

    def _make_runtime(self, enter: tuple[str, ...]) -> Daemon | Containerd:
        if self.name == "phantom":
            return Daemon(self.folder / "node", prefix=enter)
        bridge = f"{self.place.link}b"
        run = self.place.folder / "run/containerd"
        choices = Choices(sandbox_image=PAUSE, bridge=bridge, host_ports=True, prefix=enter, run_folder=run)
        return Containerd(self.folder / "node", choices)

    def _proxy_command(self) -> list[str]:
        """kube-proxy, for the addresses of Services."""
        return [
            str(tool("kube-proxy")),
            f"--kubeconfig={self.kubeconfig}",
            f"--hostname-override={NODE}",
            "--proxy-mode=nftables",
            # Pods on one bridge would answer each other directly, past the translation of addresses.
            "--masquerade-all",
            # The machine's limits of connections are its own.
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
        ]

    def _push_images(self) -> None:
        build_image(self.folder / "busybox", ImageConfig(), binaries=[Path("/usr/bin/pgrep")])
        self.registry.push(self.folder / "busybox", "busybox", "1")
        write_layout(
            self.folder / "pause", [program_layer("pause", PAUSE_SOURCE)], ImageConfig(("/pause",), ())
        )
        self.registry.push(self.folder / "pause", "pause", "1")

    def _ready(self) -> bool:
        child = self.kubelet.child
        assert child is not None
        if not child.running():
            raise RuntimeError(f"the kubelet ended with {child.process.returncode}\n{child.log_tail()}")
        try:
            node: dict[str, Any] = self.kubectl.json("get", "node", NODE)
            self.kubectl.run("get", "serviceaccount", "default")
        except KubectlError:
            return False
        conditions = node["status"].get("conditions", [])
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def __enter__(self) -> Cluster:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

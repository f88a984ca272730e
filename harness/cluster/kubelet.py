"""The kubelet, on any CRI runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.child import Child
from harness.cluster.control_plane import ControlPlane
from harness.cluster.namespaces import Namespaces
from harness.tools import tool

CLUSTER_DNS = "10.96.0.10"
NODE = "node"
"""The node's name."""


class Kubelet:
    """Takes pods for the node `NODE` and runs them on the runtime at `endpoint` (`unix://…`).

    Its configuration is that of docs/kubelet.md and what a test machine needs; `feature_gates` come on top.
    Manifests in `manifests` become static pods.
    """

    def __init__(
        self, folder: Path, place: Namespaces, endpoint: str, feature_gates: Mapping[str, bool] | None = None
    ):
        self.folder = folder
        self.place = place
        self.endpoint = endpoint
        self.feature_gates = dict(feature_gates or {})
        self.root = folder / "root"
        self.manifests = folder / "manifests"
        self.log = folder / "kubelet.log"
        self.child: Child | None = None

    def start(self, plane: ControlPlane) -> Kubelet:
        """Starts the program without waiting for it."""
        # Pods in user namespaces have to get through to their volumes.
        self.folder.mkdir(mode=0o711, exist_ok=True)
        self.manifests.mkdir(exist_ok=True)
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self._config(plane)))
        plane.client("kubelet", f"system:node:{NODE}", "system:nodes")
        command = [
            *self.place.enter,
            str(tool("kubelet")),
            f"--config={self.folder}/config.yaml",
            f"--kubeconfig={plane.folder}/kubelet.kubeconfig",
            f"--root-dir={self.root}",
            f"--node-ip={self.place.address}",
            f"--hostname-override={NODE}",
        ]
        self.child = Child(command, self.log)
        return self

    def kill(self) -> None:
        """kill -9. Pods stay."""
        if self.child is not None:
            self.child.kill()

    def _config(self, plane: ControlPlane) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": self.endpoint,
            "authentication": {
                "anonymous": {"enabled": False},
                "x509": {"clientCAFile": str(plane.authority.pair.certificate)},
            },
            "tlsCertFile": str(plane.serving.certificate),
            "tlsPrivateKeyFile": str(plane.serving.key),
            # Nobody answers there; without an address the kubelet fills each pod's events with a warning.
            "clusterDNS": [CLUSTER_DNS],
            "clusterDomain": "cluster.local",
            "volumePluginDir": str(self.folder / "plugins"),
            "cgroupRoot": self.place.cgroup,
            # What a machine may lack: cgroup v2, CAP_SYS_RESOURCE, iptables.
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "makeIPTablesUtilChains": False,
            # A full disk of the machine is not the pods' business.
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "maxPods": 250,
            "staticPodPath": str(self.manifests),
            "fileCheckFrequency": "1s",
            "containerLogMaxSize": "1Mi",
            "containerLogMonitorInterval": "3s",
            "serializeImagePulls": False,
            "registryPullQPS": 0,
            "eventRecordQPS": 0,
            # Failing containers come back soon enough to be watched.
            "crashLoopBackOff": {"maxContainerRestartPeriod": "5s"},
            "featureGates": {
                "KubeletCrashLoopBackOffMax": True,
                "PodAndContainerStatsFromCRI": True,
                **self.feature_gates,
            },
        }

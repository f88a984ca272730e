"""A node's runtime is switched as docs/kubelet.md says: from containerd to phantom-cri and back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cluster.cluster import UPSTREAM, Cluster
from harness.containerd import Containerd
from harness.crictl import Crictl
from harness.daemon import Daemon
from tests.e2e.cluster.kube import Kube, is_ready
from tests.e2e.cluster.manifests import STAY, run, workload

pytestmark = [pytest.mark.root, pytest.mark.long]


@pytest.fixture
def kube() -> Iterator[Kube]:
    """A cluster on containerd that nobody else has."""
    with tempfile.TemporaryDirectory(prefix="pk-") as name, Cluster(Path(name), "containerd") as cluster:
        watched = Kube(cluster)
        yield watched
        watched.close()


@pytest.fixture
def phantom(kube: Kube) -> Iterator[Daemon]:
    """What the node is switched to, not started yet."""
    daemon = Daemon(kube.cluster.folder / "phantom", prefix=kube.cluster.place.enter)
    daemon.folder.mkdir(mode=0o711)
    kube.cluster.registry.mirror(daemon.registries, [UPSTREAM])
    yield daemon
    daemon.destroy()


def test_a_node_goes_over_to_phantom_and_back(kube: Kube, phantom: Daemon) -> None:
    containerd = kube.cluster.runtime
    assert isinstance(containerd, Containerd)
    kube.kubectl.apply(
        workload("Deployment", "moving", run(STAY), spec={"replicas": 3}),
        workload("DaemonSet", "staying", run(STAY), spec={}),
    )
    pods_run_on(kube, "containerd")
    switch(kube, containerd, phantom)
    pods_run_on(kube, "phantom")
    switch(kube, phantom, containerd)
    pods_run_on(kube, "containerd")


def switch(kube: Kube, old: Daemon | Containerd, new: Daemon | Containerd) -> None:
    kube.kubectl.run("drain", "node", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s")
    kubelet = kube.cluster.kubelet
    kubelet.kill()
    crictl = Crictl(old.endpoint, old.folder)
    crictl.run("rmp", "-af")
    assert crictl.json("pods")["items"] == []
    assert old.child is not None
    old.child.stop()
    new.start()
    kubelet.endpoint = new.endpoint
    kubelet.start(kube.cluster.plane)
    kube.kubectl.run("uncordon", "node")


def pods_run_on(kube: Kube, runtime: str) -> None:
    """Waits until the node tells of `runtime` and all pods have containers of it."""

    def told() -> bool:
        info = kube.kubectl.json("get", "node", "node")["status"]["nodeInfo"]
        return str(info["containerRuntimeVersion"]).startswith(f"{runtime}://")

    def there(pod: dict[str, dict[str, list[dict[str, str]]]]) -> bool:
        return is_ready(pod) and pod["status"]["containerStatuses"][0]["containerID"].startswith(runtime)

    kube.until(told, f"the node to be on {runtime}")
    kube.wait_many("moving", 3, there, timeout=120)
    kube.wait_many("staying", 1, there, timeout=120)

"""What the kubelet tells of the node, and which runtime a pod gets."""

from __future__ import annotations

import json

import pytest

from tests.e2e.cluster.kube import Kube
from tests.e2e.cluster.manifests import STAY, named, needs, pod, run

pytestmark = pytest.mark.root

HANDLERS = {"phantom": {"", "phantom"}, "containerd": {"", "runc"}}
UNKNOWN = {
    "phantom": "no handler 'nothing'; known are '', 'phantom' (configuration: handlers)",
    "containerd": 'no runtime for "nothing" is configured',
}


def test_the_node_tells_the_runtimes_handlers(kube: Kube) -> None:
    status = kube.kubectl.json("get", "node", "node")["status"]
    assert status["nodeInfo"]["containerRuntimeVersion"].startswith(f"{kube.runtime}://")
    handlers = {one["name"]: one.get("features", {}) for one in status["runtimeHandlers"]}
    assert handlers.keys() == HANDLERS[kube.runtime]
    assert all(features["recursiveReadOnlyMounts"] for features in handlers.values())
    assert status["features"]["supplementalGroupsPolicy"]


@needs(
    pod("no-class", run("echo from no class")),
    pod("class", run("echo from a class"), runtimeClassName="phantom"),
)
def test_a_pod_runs_with_a_runtime_class_and_without(kube: Kube) -> None:
    assert kube.succeeded("no-class") == "from no class\n"
    assert kube.succeeded("class") == "from a class\n"


@needs(
    named("RuntimeClass", "unknown", "node.k8s.io/v1", handler="nothing"),
    pod("unknown-class", run(STAY), runtimeClassName="unknown"),
)
def test_an_unknown_handler_is_named_in_the_pods_events(kube: Kube) -> None:
    kube.wait_described("unknown-class", UNKNOWN[kube.runtime])


@needs(pod("counted", run(f"dd if=/dev/zero of=/tmp/a bs=1M count=2; {STAY}")))
def test_stats_come_from_the_runtime(kube: Kube) -> None:
    """`kubectl top` needs a metrics server; this is what it reads from the kubelet."""
    kube.ready("counted")

    def counted() -> bool:
        summary = json.loads(kube.kubectl.run("get", "--raw", "/api/v1/nodes/node/proxy/stats/summary"))
        pods = {one["podRef"]["name"]: one for one in summary["pods"]}
        found = pods.get("counted", {})
        main = found.get("containers", [{}])[0]
        return bool(
            main.get("memory", {}).get("workingSetBytes")
            and main.get("cpu", {}).get("usageCoreNanoSeconds")
            and main.get("rootfs", {}).get("usedBytes", 0) >= 2 << 20
            and found.get("network", {}).get("rxBytes") is not None
            and found.get("memory", {}).get("workingSetBytes")
        )

    kube.until(counted, "the pod's stats", timeout=45)
    resource = kube.kubectl.run("get", "--raw", "/api/v1/nodes/node/proxy/metrics/resource")
    assert (
        'container_memory_working_set_bytes{container="main",namespace="default",pod="counted"}' in resource
    )
    cadvisor = kube.kubectl.run("get", "--raw", "/api/v1/nodes/node/proxy/metrics/cadvisor")
    assert 'pod="counted"' in cadvisor

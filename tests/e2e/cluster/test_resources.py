"""Limits, QoS classes and in-place resize."""

from __future__ import annotations

import json
from functools import partial

import pytest

from tests.e2e.cluster.kube import Kube, Pod, container
from tests.e2e.cluster.manifests import STAY, Object, needs, pod, run

pytestmark = pytest.mark.root

MEMORY = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
QUOTA = "cut -d' ' -f1 /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us"
LIMITS = {"cpu": "500m", "memory": "64Mi"}


def classed(name: str, **resources: Object) -> Object:
    return pod(name, run(f"cat /proc/self/oom_score_adj; {STAY}", resources=resources))


@needs(
    classed("guaranteed", limits=LIMITS),
    classed("burstable", requests={"cpu": "10m", "memory": "32Mi"}, limits={"memory": "64Mi"}),
    classed("best-effort"),
)
def test_pods_have_their_class_and_limits(kube: Kube) -> None:
    classes = {
        name: kube.ready(name)["status"]["qosClass"] for name in ("guaranteed", "burstable", "best-effort")
    }
    assert classes == {"guaranteed": "Guaranteed", "burstable": "Burstable", "best-effort": "BestEffort"}
    assert kube.sh("guaranteed", MEMORY).strip() == str(64 << 20)
    assert kube.sh("guaranteed", QUOTA).strip() == "50000"
    assert kube.sh("burstable", MEMORY).strip() == str(64 << 20)
    scores = {name: int(kube.kubectl.run("logs", name)) for name in classes}
    # Without CAP_SYS_RESOURCE a score cannot be lowered, so the guaranteed one may have the node's own.
    assert scores["guaranteed"] <= scores["burstable"] < scores["best-effort"] == 1000


def has_limits(limits: Object, pod: Pod) -> bool:
    return bool(container(pod).get("resources", {}).get("limits") == limits)


@needs(pod("resized", run(STAY, resources={"limits": LIMITS, "requests": {"cpu": "100m", "memory": "32Mi"}})))
def test_a_pod_is_resized_in_place(kube: Kube) -> None:
    kube.ready("resized")
    for limits in ({"cpu": "750m", "memory": "96Mi"}, {"cpu": "250m", "memory": "48Mi"}):
        patch = {"spec": {"containers": [{"name": "main", "resources": {"limits": limits}}]}}
        kube.kubectl.run("patch", "pod", "resized", "--subresource=resize", "--patch", json.dumps(patch))
        kube.wait("resized", partial(has_limits, limits))
        assert kube.sh("resized", QUOTA).strip() == str(int(limits["cpu"][:-1]) * 100)
        assert kube.sh("resized", MEMORY).strip() == str(int(limits["memory"][:-2]) << 20)
    assert container(kube.pods["resized"])["restartCount"] == 0


@needs(
    pod("pids", run("ls -d /sys/fs/cgroup; nproc", resources={"limits": {"cpu": "1"}})),
    pod("pod-level", run(STAY), resources={"limits": {"memory": "64Mi", "cpu": "1"}}),
)
def test_limits_of_the_whole_pod_are_taken(kube: Kube) -> None:
    kube.succeeded("pids")
    assert kube.ready("pod-level")["status"]["qosClass"] == "Guaranteed"

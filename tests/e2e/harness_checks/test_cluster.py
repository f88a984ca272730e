"""The cluster that tests and people use leaves nothing on the machine, also when it does not come up."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from harness.cgroups import groups_below
from harness.cluster.cluster import Cluster
from harness.host import processes_below

pytestmark = pytest.mark.root


def traces(cluster: Cluster) -> list[object]:
    """What a cluster has on the machine besides its folder."""
    links = [name for name in os.listdir("/sys/class/net") if name == cluster.place.link]
    groups = [group for group in groups_below(cluster.place.cgroup) if group.exists()]
    return [*links, *groups, *processes_below(cluster.folder)]


def test_a_cluster_that_does_not_come_up_says_why_and_leaves_nothing() -> None:
    with tempfile.TemporaryDirectory(prefix="pk-") as name:
        cluster = Cluster(Path(name), feature_gates={"NoSuchGate": True})
        with pytest.raises(RuntimeError, match="unrecognized feature gate: NoSuchGate"):
            cluster.start()
        assert traces(cluster) == []


@pytest.mark.long
def test_a_cluster_with_pods_leaves_nothing() -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    with tempfile.TemporaryDirectory(prefix="pk-") as name:
        with Cluster(Path(name)) as cluster:
            cluster.kubectl.run(
                "create", "deployment", "web", "--image=registry.k8s.io/busybox:1", "--", "top"
            )
            cluster.kubectl.run("wait", "--for=condition=Available", "deployment/web", "--timeout=60s")
            assert traces(cluster) != []
        assert traces(cluster) == []
    assert Path("/proc/self/mountinfo").read_text() == mounts

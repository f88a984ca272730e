"""A kubelet with the features on that are off by default and ask more of a runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cluster.cluster import Cluster
from tests.e2e.cluster.kube import Kube, container, has_ended
from tests.e2e.cluster.manifests import STAY, pod, run

pytestmark = [pytest.mark.root, pytest.mark.long]

GATES = {"EventedPLEG": True, "CRIListStreaming": True}


@pytest.fixture
def kube() -> Iterator[Kube]:
    """A cluster that nobody else has."""
    with (
        tempfile.TemporaryDirectory(prefix="pk-") as name,
        Cluster(Path(name), feature_gates=GATES) as cluster,
    ):
        watched = Kube(cluster)
        yield watched
        watched.close()


def test_pods_live_by_events_and_streamed_lists(kube: Kube) -> None:
    restarted = run("[ -e /keep/been ] && exit 0; touch /keep/been; exit 1", volumeMounts=[KEEP])
    volumes = [{"name": "keep", "emptyDir": {}}]
    kube.kubectl.apply(
        pod("ending", run("exit 3")),
        pod("restarted", restarted, restartPolicy="OnFailure", volumes=volumes),
        *(pod(f"staying-{number}", run(STAY)) for number in range(20)),
    )
    assert container(kube.wait("ending", has_ended))["state"]["terminated"]["exitCode"] == 3
    assert container(kube.wait("restarted", has_ended))["restartCount"] == 1
    names = [f"staying-{number}" for number in range(20)]
    for name in names:
        kube.ready(name)
    kube.kubectl.run("delete", "pod", *names, "--wait=false")
    kube.wait_gone(*names)
    metrics = kube.kubectl.run("get", "--raw", "/api/v1/nodes/node/proxy/metrics").splitlines()
    assert "kubelet_evented_pleg_connection_success_count 1" in metrics
    assert "kubelet_evented_pleg_connection_error_count 0" in metrics
    assert "not implemented, falling back" not in kube.cluster.kubelet.log.read_text()


KEEP = {"name": "keep", "mountPath": "/keep"}

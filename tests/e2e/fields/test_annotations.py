"""Annotations and labels come back as they were sent, and those without effect here are told of."""

from __future__ import annotations

import pytest

from harness.daemon import Daemon
from tests.e2e.lifecycle.conftest import PodMaker

pytestmark = pytest.mark.root

UNMET = {
    "rdt.resources.beta.kubernetes.io/pod": "gold",
    "blockio.resources.beta.kubernetes.io/container.c0": "slow",
    "io.kubernetes.cri-o.ShmSize": "1g",
    "cpu-load-balancing.crio.io": "disable",
    "run.oci.systemd.subgroup": "x",
}
KEPT = {"": "empty", "io.kubernetes.container.hash": "1", "a/b": "\n\0\u202e", "not.run.oci.x": "y"}


def test_those_without_effect_are_told_of_once(node: Daemon, make_pod: PodMaker) -> None:
    pod = make_pod(annotations={**UNMET, "kubernetes.io/egress-bandwidth": "1M"})
    container = pod.create("true", annotations=UNMET)
    told = [line for line in node.log_text().splitlines() if "unsupported annotations ignored" in line]
    ours = [line for line in told if pod.id in line or container.id in line]
    assert len(ours) == 2
    for line in ours:
        assert all(key in line for key in UNMET)
        assert "gold" not in line, "values are nobody's business"
    assert "egress-bandwidth" in ours[0]


def test_the_usual_ones_are_not_told_of(node: Daemon, make_pod: PodMaker) -> None:
    pod = make_pod(annotations=KEPT, labels=KEPT)
    container = pod.create("true", annotations=KEPT, labels=KEPT)
    for status in (pod.status, container.status):
        assert (dict(status.annotations), dict(status.labels)) == (KEPT, KEPT)
    told = [line for line in node.log_text().splitlines() if "unsupported annotations" in line]
    assert not [line for line in told if pod.id in line or container.id in line]

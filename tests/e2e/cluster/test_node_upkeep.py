"""What the kubelet does by itself: static pods, rotation of logs, eviction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.cluster.kube import Kube, has_ended
from tests.e2e.cluster.manifests import STAY, Object, needs, pod, run

pytestmark = pytest.mark.root


def test_a_static_pod_comes_and_goes_with_its_file(kube: Kube) -> None:
    file = kube.cluster.kubelet.manifests / "static.json"
    file.write_text(json.dumps(pod("static", run(f"echo static; {STAY}"))))
    kube.ready("static-node")
    assert kube.kubectl.run("logs", "static-node") == "static\n"
    file.unlink()
    kube.wait_gone("static-node")


LINE = "a line of a log that is long enough to be rotated soon"


@needs(pod("logging", run(f"n=0; while [ $n -lt 40000 ]; do n=$((n+1)); echo $n {LINE}; done; {STAY}")))
def test_a_long_log_is_rotated_and_nothing_is_lost(kube: Kube) -> None:
    """40000 lines are 4 MB with their stamps: more than one file may have."""
    logs: Path = kube.cluster.place.folder / "var/log/pods"
    kube.ready("logging")
    kube.until(lambda: len(list(logs.glob("default_logging_*/main/0.log*"))) > 1, "a rotated log")
    kube.until(lambda: newest(logs).startswith("40000 "), "the last line")
    assert kube.kubectl.run("logs", "--tail=1", "logging") in (f"40000 {LINE}\n", "")


def newest(logs: Path) -> str:
    """The text of the last line in the two newest files: the rotation may have come just after it."""
    files = sorted(logs.glob("default_logging_*/main/0.log*"), key=lambda path: path.stat().st_mtime)
    lines = [line for path in files if path.suffix != ".gz" for line in path.read_text().splitlines()]
    return lines[-1].split(" ", 3)[3] if lines else ""


STORAGE: Object = {"resources": {"limits": {"ephemeral-storage": "1Mi"}}}


@pytest.mark.long  # the kubelet looks every ten seconds, and then again
@needs(pod("filling", run(f"dd if=/dev/zero of=/tmp/big bs=1M count=5; {STAY}", **STORAGE)))
def test_a_pod_that_fills_its_writable_layer_is_evicted(kube: Kube) -> None:
    """The kubelet learns of it from the runtime's stats."""
    kube.wait("filling", has_ended)
    kube.wait_described("filling", "exceeds the total limit of containers")

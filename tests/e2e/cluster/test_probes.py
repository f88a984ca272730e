"""Probes of every kind, and what follows when they fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from harness.cluster.cluster import UPSTREAM
from tests.e2e.cluster.kube import Kube, container, is_ready
from tests.e2e.cluster.manifests import STAY, WEB, Object, needs, pod, run

pytestmark = pytest.mark.root

GRPC = f"{UPSTREAM}/etcd:1"
"""An image with a server that knows gRPC's health service: etcd."""


def probe(**how: Any) -> Object:
    return {"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 5, **how}


def kinds() -> Iterator[Object]:
    by_exec = probe(exec={"command": ["sh", "-c", "test -e /tmp/ready"]})
    yield pod("probe-exec", run(f"sleep 1; touch /tmp/ready; {STAY}", readinessProbe=by_exec))
    by_http = probe(
        httpGet={"path": "/index.html", "port": 80, "httpHeaders": [{"name": "X-A", "value": "b"}]}
    )
    yield pod(
        "probe-http", run(WEB, readinessProbe=by_http, livenessProbe={**by_http, "failureThreshold": 20})
    )
    yield pod("probe-tcp", run(WEB, readinessProbe=probe(tcpSocket={"port": 80})))
    server = {
        "name": "main",
        "image": GRPC,
        "command": [
            "/etcd",
            "--data-dir=/tmp/etcd",
            "--unsafe-no-fsync",
            "--listen-client-urls=http://0.0.0.0:2379",
            "--advertise-client-urls=http://0.0.0.0:2379",
        ],
    }
    yield pod("probe-grpc", {**server, "readinessProbe": probe(grpc={"port": 2379})})
    startup = probe(exec={"command": ["test", "-e", "/tmp/ready"]}, failureThreshold=30)
    never = probe(exec={"command": ["test", "-e", "/tmp/ready"]})
    yield pod(
        "probe-startup", run(f"sleep 2; touch /tmp/ready; {STAY}", startupProbe=startup, livenessProbe=never)
    )


@needs(*kinds())
@pytest.mark.parametrize("kind", ["exec", "http", "tcp", "grpc", "startup"])
def test_a_probe_that_succeeds_makes_ready(kube: Kube, kind: str) -> None:
    assert container(kube.ready(f"probe-{kind}"))["restartCount"] == 0


FAILS = probe(exec={"command": ["sh", "-c", "echo not well; exit 1"]})
HANGS = probe(exec={"command": ["sleep", "1000"]}, timeoutSeconds=1)
REFUSED = probe(httpGet={"path": "/", "port": 81})


@needs(
    pod("probe-fails", run(STAY, livenessProbe=FAILS), restartPolicy="Always"),
    pod("probe-hangs", run(STAY, livenessProbe=HANGS), restartPolicy="Always"),
    pod("probe-refused", run(STAY, livenessProbe=REFUSED), restartPolicy="Always"),
    pod("probe-unready", run(STAY, readinessProbe=FAILS)),
)
def test_a_probe_that_fails_restarts_or_keeps_from_being_ready(kube: Kube) -> None:
    for name, words in {
        "probe-fails": "Liveness probe failed: not well",
        "probe-hangs": "Liveness probe failed: command timed out",
        "probe-refused": "connection refused",
    }.items():
        kube.wait(name, lambda pod: container(pod)["restartCount"] >= 1)
        kube.wait_described(name, words)
    kube.wait_described("probe-unready", "Readiness probe failed: not well")
    unready = kube.pods["probe-unready"]
    assert not is_ready(unready)
    assert container(unready)["restartCount"] == 0

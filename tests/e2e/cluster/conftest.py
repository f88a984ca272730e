"""One cluster for all tests here. By `-m long` the same tests run on containerd with runc, as reference."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.cluster.cluster import RUNTIME_CLASS, Cluster
from harness.image import ImageConfig, LayerBuilder, write_layout
from harness.tools import tool
from tests.e2e.cluster.differences import DIFFERENCES
from tests.e2e.cluster.kube import Kube

HANDLERS = {"phantom": "phantom", "containerd": "runc"}
"""The handler behind the RuntimeClass `phantom`."""


def runtime_of(item: pytest.Item) -> str | None:
    """Which runtime a test of the suite is for."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("kube") if callspec else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        reason = DIFFERENCES.get(getattr(item, "originalname", ""))
        if reason and runtime_of(item) == "containerd":
            item.add_marker(pytest.mark.xfail(strict=True, reason=reason))


@pytest.fixture(scope="package", params=["phantom", pytest.param("containerd", marks=pytest.mark.long)])
def kube(request: pytest.FixtureRequest) -> Iterator[Kube]:
    """A cluster with the objects of all tests that were selected; it ends with this folder's last test."""
    with tempfile.TemporaryDirectory(prefix="pk-") as name, Cluster(Path(name), request.param) as cluster:
        watched = Kube(cluster)
        prepare(cluster)
        cluster.kubectl.apply(*objects(request))
        yield watched
        watched.close()


def prepare(cluster: Cluster) -> None:
    layer = LayerBuilder().directory("tmp", mode=0o1777).file("etcd", tool("etcd").read_bytes(), 0o755)
    write_layout(cluster.folder / "etcd", [layer.finish()], ImageConfig(("/etcd",)), compression="none")
    cluster.registry.push(cluster.folder / "etcd", "etcd", "1")
    cluster.kubectl.apply({**RUNTIME_CLASS, "handler": HANDLERS[cluster.name]})


def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """What the tests' `needs` say, each once."""
    tests = [item for item in request.session.items if runtime_of(item) == request.param]
    functions = dict.fromkeys(getattr(item, "function", None) for item in tests)
    return [made for function in functions for made in getattr(function, "objects", ())]

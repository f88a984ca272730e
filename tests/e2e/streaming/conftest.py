from __future__ import annotations

import pytest

from harness.daemon import Daemon
from tests.e2e.lifecycle.client import Container, Pod
from tests.e2e.lifecycle.conftest import cri, make_pod, node, pod, shared
from tests.e2e.streaming.client import StreamClient

__all__ = ["cri", "make_pod", "node", "pod", "shared"]


@pytest.fixture(params=["spdy", "websocket"])
def client(node: Daemon, request: pytest.FixtureRequest) -> StreamClient:
    return StreamClient(node.endpoint, request.param)


@pytest.fixture
def spdy(node: Daemon) -> StreamClient:
    return StreamClient(node.endpoint, "spdy")


@pytest.fixture
def container(pod: Pod) -> Container:
    """Does nothing but run."""
    return pod.start("trap 'exit 0' TERM; while :; do sleep 0.1; done")

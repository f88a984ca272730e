from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.cni.node import CniNode

NodeMaker = Callable[..., CniNode]


@pytest.fixture
def make_node(request: pytest.FixtureRequest) -> Iterator[NodeMaker]:
    """Makes nodes that are not started yet; whatever a test did, nothing of them stays."""
    nodes: list[CniNode] = []
    request.node.daemons = []

    def make(pool: int = 2, prewire: str = "auto", timeout: str = "20s") -> CniNode:
        node = CniNode(Path(tempfile.mkdtemp(prefix="pf-")), pool=pool, prewire=prewire, timeout=timeout)
        nodes.append(node)
        request.node.daemons.append(node.daemon)
        return node

    yield make
    for node in nodes:
        node.destroy()
        shutil.rmtree(node.daemon.folder, ignore_errors=True)


@pytest.fixture
def node(make_node: NodeMaker, busybox_image: str) -> Iterator[CniNode]:
    """A started node whose pods can be reached by host ports and have limited bandwidth."""
    made = make_node()
    made.configure(made.chain())
    made.daemon.start()
    yield made

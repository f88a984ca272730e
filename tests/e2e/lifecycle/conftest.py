"""One daemon for all tests that leave it as it was; what it has at the end must be what it had before."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness.crictl import Crictl
from tests.e2e.harness.daemon import Daemon
from tests.e2e.lifecycle.client import Cri, Pod

PodMaker = Callable[..., Pod]


@pytest.fixture(scope="session")
def shared_daemon(busybox_image: str) -> Iterator[Daemon]:
    with Daemon(Path(tempfile.mkdtemp(prefix="pf-")), {"pools": [{"name": "default", "size": 4}]}) as daemon:
        warm_up(daemon, busybox_image)
        before = daemon.snapshot()
        yield daemon
        daemon.wait_for_no_traces(before)


def warm_up(daemon: Daemon, image: str) -> None:
    """Pull the image and run a pod, so that what is made once for all pods is there."""
    cri = Cri(daemon.endpoint)
    cri.pull(image)
    pod = cri.pod(daemon.folder / "logs").run_sandbox()
    pod.run("true")
    pod.remove()
    cri.wait_pools_full()
    cri.close()


@pytest.fixture
def node(shared_daemon: Daemon, request: pytest.FixtureRequest) -> Daemon:
    request.node.daemons = [shared_daemon]  # the end of its log is shown when the test fails
    return shared_daemon


@pytest.fixture
def cri(node: Daemon, busybox_image: str) -> Iterator[Cri]:
    """A client of the shared daemon; pods that the test leaves are removed."""
    client = Cri(node.endpoint)
    client.pull(busybox_image)
    try:
        yield client
    finally:
        client.remove_pods()
        client.close()


@pytest.fixture
def make_pod(cri: Cri, tmp_path: Path) -> PodMaker:
    """Runs pods on the shared daemon; takes the fields of PodSandboxConfig."""

    def make(handler: str = "", **fields: Any) -> Pod:
        return cri.pod(tmp_path, **fields).run_sandbox(handler)

    return make


@pytest.fixture
def pod(make_pod: PodMaker) -> Pod:
    return make_pod()


@pytest.fixture
def crictl(node: Daemon, tmp_path: Path) -> Crictl:
    return Crictl(node.endpoint, tmp_path)

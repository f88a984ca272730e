"""One daemon for all tests that leave it as it was; what it has at the end must be what it had before."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.crictl import Crictl
from harness.daemon import Daemon
from harness.host import Snapshot
from harness.waiting import wait_until
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Cri, Pod
from tests.e2e.lifecycle.releases import Release

PodMaker = Callable[..., Pod]
StartRelease = Callable[[Release], tuple[Daemon, Cri]]


@dataclass(frozen=True)
class Shared:
    daemon: Daemon
    cri: Cri


@pytest.fixture(scope="session")
def shared(busybox_image: str) -> Iterator[Shared]:
    with Daemon(Path(tempfile.mkdtemp(prefix="pf-")), {"pools": [{"name": "default", "size": 4}]}) as daemon:
        cri = Cri(daemon.endpoint)  # open to the end: its connection is among what the daemon has before
        cri.pull(busybox_image)
        before = warmed_up(daemon, cri)
        yield Shared(daemon, cri)
        daemon.wait_for_no_traces(before)
        cri.close()


def warmed_up(daemon: Daemon, cri: Cri) -> Snapshot:
    """All that the daemon has once a pod has come and gone."""
    pod = cri.pod(daemon.folder / "logs").run_sandbox()
    pod.run("true")
    pod.remove()
    return settled(daemon, cri)


def settled(daemon: Daemon, cri: Cri) -> Snapshot:
    """What the daemon has without pods, its pools full and the last pod's link removed by the kernel."""
    cri.wait_pools_full()

    def links_are_those_of_the_pools() -> Snapshot | None:
        snapshot = daemon.snapshot()
        links, fragments = snapshot.counts["links on the bridge"], snapshot.counts["processes"]["fragment"]
        return snapshot if links.total() == fragments else None

    snapshot = wait_until(links_are_those_of_the_pools, "the links of pods to go")
    assert snapshot is not None
    return snapshot


@pytest.fixture
def node(shared: Shared, request: pytest.FixtureRequest) -> Daemon:
    request.node.daemons = [shared.daemon]  # the end of its log is shown when the test fails
    return shared.daemon


@pytest.fixture
def cri(node: Daemon, shared: Shared) -> Iterator[Cri]:
    """A client of the shared daemon; pods that the test leaves are removed."""
    yield shared.cri
    shared.cri.remove_pods()


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


@pytest.fixture
def start_release(make_daemon: DaemonMaker, busybox_image: str) -> Iterator[StartRelease]:
    """Starts a daemon of a release, with an image."""
    clients = []

    def started(release: Release) -> tuple[Daemon, Cri]:
        daemon = make_daemon({"pools": [{"name": "default", "size": 1}]}, release).start()
        clients.append(Cri(daemon.endpoint))
        clients[0].pull(busybox_image)
        return daemon, clients[0]

    yield started
    for client in clients:
        client.close()

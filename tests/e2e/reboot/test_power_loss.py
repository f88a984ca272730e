"""The power goes at random moments while pods come and go: what clients were told stays true."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from harness.daemon import Daemon
from harness.reboot import go_down
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Container, Cri, Pod
from tests.e2e.lifecycle.conftest import warmed_up
from tests.e2e.reboot.test_reboot import WINDOW_S

pytestmark = pytest.mark.root

CLIENTS = 3
BUDGET_S = 90.0
"""After so long no further round begins: the rest is for a quieter machine."""


@dataclass
class Told:
    """What clients have heard, with the time of each answer."""

    exited: dict[str, tuple[float, pb.ContainerStatus]] = field(default_factory=dict)
    asked_to_go: set[str] = field(default_factory=set)  # pods and containers, answered or not
    gone: dict[str, float] = field(default_factory=dict)


class Load:
    """Clients that run pods until the daemon goes, and remove some of them."""

    def __init__(self, daemon: Daemon, image: str, logs: Path) -> None:
        self.told = Told()
        self._daemon, self._image, self._logs = daemon, image, logs
        self._threads = ThreadPoolExecutor(CLIENTS)
        self._work = [self._threads.submit(self._run) for _ in range(CLIENTS)]

    def end(self) -> Told:
        """After the daemon's death. Raises what a client met before that."""
        self._threads.shutdown()
        for work in self._work:
            work.result()
        return self.told

    def _run(self) -> None:
        with closing(Cri(self._daemon.endpoint, self._image)) as cri, suppress(ConnectionError):
            while True:
                try:
                    self._cycle(cri)
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    raise ConnectionError from None

    def _cycle(self, cri: Cri) -> None:
        pod = cri.pod(self._logs).run_sandbox()
        made = [pod.start(f"exit {random.randrange(200)}") for _ in range(random.randrange(1, 3))]
        made.append(pod.start("sleep 1000"))
        for container in made[:-1]:
            status = container.wait_exited()
            self.told.exited[container.id] = (time.monotonic(), status)
        if random.random() < 0.3:
            self._remove(made[0].id, made[0].remove)
        if random.random() < 0.6:
            self.told.asked_to_go |= {container.id for container in made}
            pod.stop()
            self._remove(pod.id, pod.remove)
            self.told.gone |= {container.id: self.told.gone[pod.id] for container in made}

    def _remove(self, object_id: str, removal: Callable[[], None]) -> None:
        self.told.asked_to_go.add(object_id)
        removal()
        self.told.gone[object_id] = time.monotonic()


def check(cri: Cri, told: Told, went: float) -> int:
    """How many ends were long enough ago to have to be known."""
    known_pods, known = cri.pods(), cri.containers()
    old_ends = {
        container_id: status
        for container_id, (heard, status) in told.exited.items()
        if heard < went - WINDOW_S and container_id not in told.asked_to_go
    }
    for container_id, status in old_ends.items():
        assert Container(cri, container_id).status == status
    for container_id, (_, status) in told.exited.items():
        if (
            container_id in known
        ):  # heard of later, or removed later: as it was, or as if it had not been seen
            found = Container(cri, container_id).status
            assert (
                found == status or (found.exit_code, found.reason) == (255, "Unknown") or not found.started_at
            )
    for object_id, heard in told.gone.items():
        if heard < went - WINDOW_S:
            assert object_id not in known_pods | known, "what was removed does not come back"
    for one in cri.runtime.ListContainers(pb.ListContainersRequest()).containers:
        assert one.pod_sandbox_id in known_pods
        assert one.state in (pb.CONTAINER_EXITED, pb.CONTAINER_CREATED)
    for sandbox_id in known_pods:
        assert Pod(cri, pb.PodSandboxConfig(), sandbox_id).status.state == pb.SANDBOX_NOTREADY
    return len(old_ends)


@pytest.mark.parametrize("rounds", [8, pytest.param(100, marks=pytest.mark.long)])
def test_what_was_told_stays_true(
    make_daemon: DaemonMaker, busybox_image: str, tmp_path: Path, rounds: int
) -> None:
    daemon = make_daemon({"pools": [{"name": "default", "size": 3}]}).start()
    began, ends, done = time.monotonic(), 0, 0
    with closing(Cri(daemon.endpoint)) as cri:
        cri.pull(busybox_image)
        before = warmed_up(daemon, cri)
        while done < rounds and time.monotonic() - began < BUDGET_S * rounds / 20:
            load = Load(daemon, cri.image, tmp_path)
            time.sleep(random.uniform(0.1, 2.0))
            went = time.monotonic()
            go_down(daemon)
            told = load.end()
            if random.random() < 0.2:  # it goes again before it is all back
                daemon.launch()
                time.sleep(random.uniform(0.05, 0.6))
                go_down(daemon)
            daemon.start()
            cri.wait_served()
            ends += check(cri, told, went)
            cri.remove_pods()
            done += 1
        print(f"{done} rounds, {ends} ends that had to be known")
        assert ends > done > 2, "the rounds were rounds"
        daemon.wait_for_no_traces(before)

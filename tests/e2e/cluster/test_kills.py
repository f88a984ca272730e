"""kill -9 of phantom-cri and of the kubelet, in turn, while pods run, start and end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random, choice
from threading import Event, Thread
from typing import Any

import pytest

from harness.cluster.cluster import Cluster
from harness.cluster.kubectl import KubectlError
from harness.crictl import Crictl
from harness.daemon import Daemon
from harness.host import Snapshot
from tests.e2e.cluster.kube import Kube, container, has_ended, is_ready
from tests.e2e.cluster.manifests import STAY, Object, pod, run, workload

pytestmark = [pytest.mark.root, pytest.mark.long]

ROUNDS = 10
"""In each of two parts, as one test may not take five minutes."""
RUNNING = 20
FIVE = "1\n2\n3\n4\n5\n"
COUNT = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.2; done"


@pytest.fixture
def kube() -> Iterator[Kube]:
    """A cluster that nobody else has."""
    with tempfile.TemporaryDirectory(prefix="pk-") as name, Cluster(Path(name)) as cluster:
        watched = Kube(cluster)
        yield watched
        watched.close()


class Churn:
    """Pods that come, are talked to and go, all the time; what went wrong is in `wrong`."""

    def __init__(self, kube: Kube, running: list[str]):
        self.kube = kube
        self.running = running
        self.wrong: list[str] = []
        self.execs = 0
        self.made = 0
        self._end = Event()
        self._threads = [Thread(target=self._repeat, args=(work,)) for work in (self._pods, self._talk)]

    def start(self) -> Churn:
        for thread in self._threads:
            thread.start()
        return self

    def end(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(120)

    def _repeat(self, work: Any) -> None:
        while not self._end.is_set():
            try:
                work()
            except Exception as error:
                self.wrong.append(f"{work.__name__}: {error!r}")

    def _pods(self) -> None:
        """One that ends with a known status, one that is deleted as it runs."""
        self.made += 1
        ending, deleted = f"ending-{self.made}", f"deleted-{self.made}"
        self.kube.kubectl.apply(ends_with(ending, self.made % 200), pod(deleted, run(STAY)))
        status = container(self.kube.wait(ending, has_ended, timeout=120))["state"]["terminated"]
        if status["exitCode"] != self.made % 200:
            self.wrong.append(f"{ending}: {status}")
        self.kube.wait(deleted, is_ready, timeout=120)
        self.kube.kubectl.run("delete", "pod", ending, deleted, "--wait=false")
        self.kube.wait_gone(ending, deleted, timeout=120)

    def _talk(self) -> None:
        """A kill breaks an exec off, which kubectl may take for its end: it never sees a status."""
        name = choice(self.running)
        try:
            output = self.kube.sh(name, "for n in 1 2 3 4 5; do echo $n; sleep 0.1; done")
        except KubectlError:
            return
        self.execs += output == FIVE
        if not FIVE.startswith(output):
            self.wrong.append(f"exec in {name}: {output!r}")


def ends_with(name: str, status: int) -> Object:
    return pod(name, run(f"sleep 1; exit {status}"))


@pytest.mark.parametrize("part", [0, 1])
def test_nothing_is_lost_and_nothing_is_left(kube: Kube, part: int) -> None:
    daemon = kube.cluster.runtime
    assert isinstance(daemon, Daemon)
    kube.kubectl.apply(pod("first", run("true")))
    kube.succeeded("first")
    kube.kubectl.run("delete", "pod", "first")
    kube.until(lambda: not listed(kube), "the first pod to go", timeout=120)
    before = Snapshot.take(daemon.folder, daemon.running.pid, kube.cluster.place.cgroup, daemon.bridge)
    kube.kubectl.apply(workload("Deployment", "counting", run(COUNT), spec={"replicas": RUNNING}))
    running = kube.wait_many("counting", RUNNING, is_ready, timeout=120)
    names = [pod["metadata"]["name"] for pod in running]
    churn = Churn(kube, names).start()
    for number in range(ROUNDS):
        kill_both(kube, daemon, Random(part * ROUNDS + number))
    churn.end()
    assert not churn.wrong, "\n".join(churn.wrong)
    assert churn.made >= ROUNDS / 4
    assert churn.execs >= ROUNDS / 4
    assert same(kube.wait_many("counting", RUNNING, is_ready)) == same(running)
    for name in names:
        numbers = [int(line) for line in kube.kubectl.run("logs", name).split()]
        assert numbers == list(range(1, len(numbers) + 1)), name
    kube.kubectl.run("delete", "deployment", "counting", "--cascade=foreground")
    kube.wait_gone(*names, timeout=120)
    kube.until(lambda: not listed(kube), "all pods to go", timeout=180)
    nothing_left(kube, daemon, before)


def kill_both(kube: Kube, daemon: Daemon, moments: Random) -> None:
    """Each at some moment of what goes on, and back at once, as systemd would start it."""
    Event().wait(moments.uniform(0, 2))
    daemon.kill()
    daemon.start()
    Event().wait(moments.uniform(0, 2))
    kube.cluster.kubelet.kill()
    kube.cluster.kubelet.start(kube.cluster.plane)
    kube.until(lambda: not_refused(kube), "the kubelet to answer")


def not_refused(kube: Kube) -> bool:
    try:
        return kube.kubectl.run("get", "--raw", "/api/v1/nodes/node/proxy/healthz") == "ok"
    except KubectlError:
        return False


def same(pods: list[Object]) -> dict[str, tuple[str, str, int]]:
    """What must not change: the pod, its container, how often that was restarted."""
    found = {}
    for one in pods:
        main = container(one)
        found[one["metadata"]["uid"]] = (one["metadata"]["name"], main["containerID"], main["restartCount"])
    return found


def listed(kube: Kube) -> list[Object]:
    """The sandboxes that the runtime still has."""
    found: list[Object] = Crictl(kube.cluster.runtime.endpoint, kube.cluster.folder).json("pods")["items"]
    return found


def nothing_left(kube: Kube, daemon: Daemon, before: Snapshot) -> None:
    def differences() -> str:
        now = Snapshot.take(daemon.folder, daemon.running.pid, kube.cluster.place.cgroup, daemon.bridge)
        return now.differences(before)

    try:
        kube.until(lambda: not differences(), "no traces", timeout=60)
    except TimeoutError:
        pytest.fail(f"left behind:\n{differences()}")

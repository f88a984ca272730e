"""`kill -9` of the daemon at random moments while pods come and go: nothing is lost, nothing is left."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import grpc
import pytest

from harness.daemon import Daemon
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Container, Cri, Pod
from tests.e2e.lifecycle.conftest import warmed_up

pytestmark = pytest.mark.root

CLIENTS = 4
GIVE_UP_SECONDS = 60.0
PAUSE_SECONDS = 0.02
SHORT_LINES = 25

Answer = TypeVar("Answer")


def insist(call: Callable[[], Answer]) -> Answer:
    """Sends a request again for as long as no daemon is there; any other refusal is a failure."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                raise
        time.sleep(PAUSE_SECONDS)


def created(pod: Pod, script: str) -> Container:
    request = pb.CreateContainerRequest(
        pod_sandbox_id=pod.id, config=pod.container_config(script), sandbox_config=pod.config
    )
    return Container(pod.cri, insist(lambda: pod.cri.runtime.CreateContainer(request).container_id))


def wait_exited(container: Container) -> pb.ContainerStatus:
    def exited() -> pb.ContainerStatus | None:
        status = insist(lambda: container.status)
        return status if status.state == pb.CONTAINER_EXITED else None

    status = wait_until(exited, f"{container.id} to exit", GIVE_UP_SECONDS, PAUSE_SECONDS)
    assert status is not None
    return status


def check_lines(container: Container, last: str, at_least: int = 1) -> None:
    """The log has line 1 to line n without a gap or a repetition, and then `last`."""
    *lines, end = insist(lambda: container.output).splitlines()
    assert lines == [f"line {number + 1}" for number in range(len(lines))]
    assert len(lines) >= at_least
    assert end == last


def one_cycle(cri: Cri, logs: Path, number: int) -> None:
    """A pod with a container that ends by itself and one that is stopped; every answer is checked."""
    pod = cri.pod(logs)
    insist(pod.run_sandbox)
    code = number % 100
    short = created(pod, f"for n in $(seq {SHORT_LINES}); do echo line $n; done; echo done; exit {code}")
    steady = created(
        pod, "trap 'echo stopped; exit 7' TERM; n=0; while :; do n=$((n+1)); echo line $n; sleep 0.01; done"
    )
    for container in (short, steady):
        insist(container.start)
    assert wait_exited(short).exit_code == code
    check_lines(short, "done", at_least=SHORT_LINES)
    wait_until(lambda: "line 1" in insist(lambda: steady.output), "the trap to be set")
    insist(lambda: steady.stop(timeout=30))
    assert wait_exited(steady).exit_code == 7
    check_lines(steady, "stopped")
    for removal in (short.remove, pod.stop, pod.remove):
        insist(removal)


class Load:
    """Clients that run pod cycles until they are told to stop or one of them fails."""

    def __init__(self, daemon: Daemon, image: str, logs: Path) -> None:
        self._daemon, self._image, self._logs = daemon, image, logs
        self._stop = threading.Event()
        self._numbers = itertools.count()
        self._failures: list[Exception] = []
        self._threads = ThreadPoolExecutor(CLIENTS)
        self._cycles = [self._threads.submit(self._run) for _ in range(CLIENTS)]

    def _run(self) -> int:
        cycles = 0
        with closing(Cri(self._daemon.endpoint, self._image)) as cri:
            while not self._stop.is_set():
                try:
                    one_cycle(cri, self._logs, next(self._numbers))
                except Exception as error:  # all count; the first one to come is the one to be told
                    self._failures.append(error)
                    self._stop.set()
                cycles += 1
        return cycles

    def goes_on(self) -> bool:
        return not self._stop.is_set()

    def end(self) -> int:
        """How many cycles there were; raises what went wrong in any of them."""
        self._stop.set()
        self._threads.shutdown()
        if self._failures:
            raise self._failures[0]
        return sum(cycles.result() for cycles in self._cycles)


@pytest.fixture
def daemon(make_daemon: DaemonMaker) -> Daemon:
    return make_daemon({"pools": [{"name": "default", "size": 4}]}).start()


@pytest.fixture
def cri(daemon: Daemon, busybox_image: str) -> Iterator[Cri]:
    with closing(Cri(daemon.endpoint)) as client:
        client.pull(busybox_image)
        yield client


@pytest.mark.parametrize("kills", [12, pytest.param(100, marks=pytest.mark.long)])
def test_kills_under_load_lose_nothing_and_leave_nothing(
    daemon: Daemon, cri: Cri, tmp_path: Path, kills: int
) -> None:
    before = warmed_up(daemon, cri)
    survivors = [cri.pod(tmp_path).run_sandbox() for _ in range(2)]
    witnesses = [
        pod.start("trap 'echo end; exit 9' TERM; n=0; while :; do n=$((n+1)); echo line $n; sleep 0.02; done")
        for pod in survivors
    ]
    pids = [json.loads(witness.details)["pid"] for witness in witnesses]

    load = Load(daemon, cri.image, tmp_path)
    for _ in range(kills):
        # From before it has read its records until it has served for a while.
        time.sleep(random.uniform(0.05, 1.5))
        if not load.goes_on():
            break
        daemon.kill()
        daemon.launch()
    cycles = load.end()

    cri.wait_served()
    assert cycles >= kills // 4, "the load was a load"
    assert [json.loads(witness.details)["pid"] for witness in witnesses] == pids
    for witness in witnesses:
        witness.stop(timeout=30)
        assert witness.status.exit_code == 9
        check_lines(witness, "end", at_least=kills)
    assert cri.pods() == {pod.id for pod in survivors}
    for pod in survivors:
        pod.remove()
    daemon.wait_for_no_traces(before)

"""Events: all of them, in order, to everybody who listens and keeps up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness.crictl import Crictl
from harness.daemon import Daemon
from harness.tools import tool
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.api.cri.v1 import api_pb2_grpc
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Cri, Pod, refusal

pytestmark = pytest.mark.root

CREATED, STARTED, STOPPED, DELETED = (
    pb.CONTAINER_CREATED_EVENT,
    pb.CONTAINER_STARTED_EVENT,
    pb.CONTAINER_STOPPED_EVENT,
    pb.CONTAINER_DELETED_EVENT,
)
LIFE = [CREATED, STARTED, STOPPED, DELETED]


class Listener:
    """Reads all events on a thread, on a connection of its own."""

    def __init__(self, endpoint: str) -> None:
        channel: Any = grpc.insecure_channel
        self._channel = channel(endpoint, options=[("grpc.use_local_subchannel_pool", 1)])
        runtime: Any = api_pb2_grpc.RuntimeServiceStub(self._channel)
        self.call = runtime.GetContainerEvents(pb.GetEventsRequest())
        self.call.initial_metadata()  # from here on it listens
        self.events: list[pb.ContainerEventResponse] = []
        self.end: grpc.RpcError | None = None
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def read(self) -> Listener:
        self._thread.start()
        return self

    def _read(self) -> None:
        try:
            for event in self.call:
                self.events.append(event)
        except grpc.RpcError as error:
            self.end = error
        self.ended.set()

    def raise_end(self) -> None:
        if self.end is not None:
            raise self.end

    def kinds(self, object_id: str) -> list[int]:
        return [one.container_event_type for one in self.events if one.container_id == object_id]

    def wait(self, object_id: str, kind: int) -> pb.ContainerEventResponse:
        def found() -> pb.ContainerEventResponse | None:
            fits = (
                one
                for one in self.events
                if (one.container_id, one.container_event_type) == (object_id, kind)
            )
            return next(fits, None)

        event = wait_until(found, f"event {kind} of {object_id}")
        assert event is not None
        return event

    def close(self) -> None:
        self.call.cancel()
        if self._thread.ident:
            self._thread.join()
        self._channel.close()


@pytest.fixture
def listen(node: Daemon) -> Iterator[Callable[[], Listener]]:
    made: list[Listener] = []

    def begin() -> Listener:
        made.append(Listener(node.endpoint))
        return made[-1]

    yield begin
    for listener in made:
        listener.close()


def test_a_pods_life(cri: Cri, listen: Callable[[], Listener], tmp_path: Path) -> None:
    listener = listen().read()
    pod = cri.pod(tmp_path).run_sandbox()
    container = pod.run("exit 3")
    container.remove()
    broken = pod.create(["/no-such-program"])
    with pytest.raises(grpc.RpcError):
        broken.start()
    pod.stop()
    pod.remove()
    listener.wait(pod.id, DELETED)
    assert listener.kinds(container.id) == LIFE
    assert listener.kinds(broken.id) == [CREATED, STOPPED, DELETED], "it never ran"
    assert listener.kinds(pod.id) == LIFE
    times = [one.created_at for one in listener.events]
    assert times == sorted(set(times)) and times[0] > 0
    for event in listener.events:
        assert event.pod_sandbox_status.id == pod.id and event.pod_sandbox_status.metadata.uid
    stopped = listener.wait(container.id, STOPPED)
    (status,) = stopped.containers_statuses
    assert (status.id, status.state, status.exit_code) == (container.id, pb.CONTAINER_EXITED, 3)
    assert not listener.wait(container.id, DELETED).containers_statuses
    assert listener.wait(pod.id, STARTED).pod_sandbox_status.state == pb.SANDBOX_READY
    assert listener.wait(pod.id, STOPPED).pod_sandbox_status.state == pb.SANDBOX_NOTREADY
    first, *_, last = listener.events
    assert (first.container_id, last.container_id) == (pod.id, pod.id)


def test_a_pods_death_ends_its_containers_first(
    cri: Cri, listen: Callable[[], Listener], tmp_path: Path, node: Daemon
) -> None:
    listener = listen().read()
    pod = cri.pod(tmp_path).run_sandbox()
    container = pod.start("sleep 60")
    fragment = json.loads((node.state / "pods" / pod.id / "fragment.json").read_text())["pid"]
    os.kill(int(fragment), signal.SIGKILL)
    stopped = listener.wait(pod.id, STOPPED)
    assert listener.kinds(container.id) == [CREATED, STARTED, STOPPED]
    assert listener.wait(container.id, STOPPED).created_at < stopped.created_at
    pod.remove()


def test_the_status_of_a_pod_has_its_containers(pod: Pod) -> None:
    before = time.time_ns()
    created, ended = pod.create("true"), pod.run("exit 4")
    request = pb.PodSandboxStatusRequest(pod_sandbox_id=pod.id)
    answer = pod.cri.runtime.PodSandboxStatus(request)
    assert answer.timestamp >= before
    assert [one.id for one in answer.containers_statuses] == [created.id, ended.id]
    assert answer.containers_statuses[1] == ended.status


def churn(cri: Cri, folder: Path, number: int) -> list[str]:
    pod = cri.pod(folder / str(number)).run_sandbox()
    ids = [pod.run("true").id for _ in range(5)]
    pod.remove()
    return ids


def test_churn_with_a_slow_reader_and_one_that_is_killed(
    cri: Cri, node: Daemon, listen: Callable[[], Listener], tmp_path: Path
) -> None:
    """100 containers: whoever keeps up, however late it begins to read, has all events of each in order."""
    prompt, late = listen().read(), listen()
    command = f"import sys; sys.argv = ['x', {node.endpoint!r}]\n" + READ_ONE_AND_HANG
    killed = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE)
    assert killed.stdout is not None and killed.stdout.readline() == b"listens\n"
    with ThreadPoolExecutor(4) as threads:
        runs = [threads.submit(churn, cri, tmp_path, number) for number in range(10)]
        killed.kill()
        killed.wait()
        runs += [threads.submit(churn, cri, tmp_path, number) for number in range(10, 20)]
        ids = [one for run in runs for one in run.result()]
    killed.stdout.close()
    assert len(ids) == 100
    late.read()
    for listener in (prompt, late):
        wait_until(lambda: len(listener.events) >= 480, "all events", timeout=30)  # noqa: B023
        assert all(listener.kinds(one) == LIFE for one in ids)
        times = [one.created_at for one in listener.events]
        assert times == sorted(set(times))
    assert prompt.events == late.events


READ_ONE_AND_HANG = """
import grpc, time
from phantom_cri.api.cri.v1 import api_pb2 as pb, api_pb2_grpc
stub = api_pb2_grpc.RuntimeServiceStub(grpc.insecure_channel(sys.argv[1]))
call = stub.GetContainerEvents(pb.GetEventsRequest())
call.initial_metadata()
print("listens", flush=True)
next(call)
time.sleep(600)
"""


@pytest.mark.long
def test_a_reader_that_falls_behind_is_told(cri: Cri, listen: Callable[[], Listener], tmp_path: Path) -> None:
    """Big labels fill the connection's own buffers soon."""
    pod = cri.pod(tmp_path, labels={f"label-{number}": "x" * 1000 for number in range(100)}).run_sandbox()
    stuck = listen()
    for _ in range(2400):
        pod.create("true").remove()
    prompt = listen().read()
    stuck.read()
    assert stuck.ended.wait(60), "its stream ends"
    code, text = refusal(stuck.raise_end)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED and "fell behind" in text
    pod.remove()
    prompt.wait(pod.id, DELETED)


def test_streams_end_with_the_daemon(make_daemon: DaemonMaker) -> None:
    daemon = make_daemon({"pools": []}).start()
    listeners = [Listener(daemon.endpoint).read() for _ in range(20)]
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 5, "it does not wait for listeners"
    for listener in listeners:
        assert listener.ended.wait(10) and listener.end is None
        listener.close()


def test_crictl(node: Daemon, crictl: Crictl, cri: Cri, tmp_path: Path) -> None:
    output = tmp_path / "events"
    arguments = [f"--config={os.devnull}", f"--runtime-endpoint={node.endpoint}", "events", "-o", "json"]
    with output.open("w") as file:
        running = subprocess.Popen([str(tool("crictl")), *arguments], stdout=file)
        try:
            pod = wait_until(lambda: told(cri, output, tmp_path), "crictl to listen", timeout=20)
            assert pod is not None
            wait_until(lambda: "CONTAINER_DELETED_EVENT" in output.read_text(), "the last event")
        finally:
            running.terminate()
            running.wait()


def told(cri: Cri, output: Path, folder: Path) -> str | None:
    """Another pod's life, whose id the output then has."""
    pod = cri.pod(folder).run_sandbox()
    pod.remove()
    return pod.id if pod.id in output.read_text() else None

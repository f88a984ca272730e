"""Fifty clients at once, each doing what comes to its mind with everybody's pods."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest

from harness.daemon import Daemon
from harness.waiting import PATIENCE
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.hostile.test_requests import FAULTLESS
from tests.e2e.lifecycle.client import Cri, Pod, refusal
from tests.e2e.lifecycle.conftest import settled, warmed_up

pytestmark = pytest.mark.root

CLIENTS = 50
PODS = 30
"""About so many at a time: from then on they are rather removed."""

LIST_SECONDS = 5.0
SCRIPTS = [
    "sleep 1000",
    "true",
    "exit 3",
    "while :; do echo more; sleep 0.01; done",
    "no-such-program",
    "cat",
]


class World:
    """What the clients have told one another; most of it is out of date."""

    def __init__(self, image: str, name: str, logs: Path) -> None:
        self.image, self.name, self.logs = image, name, logs
        self.pods: dict[str, Pod] = {}
        self.containers: dict[str, None] = {}
        self.answers: Counter[str] = Counter()
        self.faults: list[str] = []

    def note(self, verb: str, error: grpc.RpcError) -> None:
        code, text = error.code(), error.details() or ""
        self.answers[f"{verb} {code.name}"] += 1
        ours = {grpc.StatusCode.DEADLINE_EXCEEDED} if verb in ("pull", "execute") else set()
        if code is grpc.StatusCode.UNKNOWN and text.startswith('exec: "'):
            return
        if text == "the pod ended during the exec":
            return
        if code not in FAULTLESS | ours:
            self.faults.append(f"{verb}: {code.name}: {text}")


class Client:
    """One of the crowd, with a connection of its own."""

    def __init__(self, daemon: Daemon, world: World, seed: int) -> None:
        self.cri = Cri(daemon.endpoint, world.image)
        self.world, self.chance = world, random.Random(seed)
        self.last = ""

    def run(self, until: float) -> None:
        try:
            while time.monotonic() < until:
                verb = self.chance.choice(VERBS)
                try:
                    verb(self)
                except grpc.RpcError as error:
                    self.world.note(verb.__name__, error)
                    if error.code() is grpc.StatusCode.NOT_FOUND and self.chance.random() < 0.7:
                        self.forget()
                else:
                    self.world.answers[f"{verb.__name__} OK"] += 1
        except Exception as error:
            self.world.faults.append(f"{verb.__name__}: {error!r}")
        finally:
            self.cri.close()

    def pod(self) -> Pod:
        known = list(self.world.pods.values())
        found = self.chance.choice(known) if known else self.cri.pod(self.world.logs)
        self.last = found.id or "none"
        return Pod(self.cri, found.config, self.last)

    def container(self) -> str:
        self.last = self.chance.choice([*self.world.containers, "none"])
        return self.last

    def forget(self) -> None:
        """What was asked for last, which is gone; others may ask for it again."""
        self.world.pods.pop(self.last, None)
        self.world.containers.pop(self.last, None)

    # verbs

    def run_pod(self) -> None:
        if len(self.world.pods) >= PODS:
            self.remove_pod()
            return
        pod = self.cri.pod(self.world.logs)
        if self.world.pods and self.chance.random() < 0.1:
            pod.config.metadata.CopyFrom(self.pod().config.metadata)  # taken, or just freed
        pod.run_sandbox()
        self.world.pods[pod.id] = pod

    def stop_pod(self) -> None:
        if self.chance.random() < 0.3:
            self.pod().stop()

    def remove_pod(self) -> None:
        self.pod().remove()
        self.forget()

    def create(self) -> None:
        pod, script = self.pod(), self.chance.choice(SCRIPTS)
        stdin = self.chance.random() < 0.3
        config = pod.container_config(script, stdin=stdin, tty=stdin and self.chance.random() < 0.5)
        config.metadata.name = str(self.chance.randrange(20))
        request = pb.CreateContainerRequest(pod_sandbox_id=pod.id, config=config, sandbox_config=pod.config)
        container_id = self.cri.runtime.CreateContainer(request).container_id
        self.world.containers[container_id] = None
        if self.chance.random() < 0.7:
            self.cri.runtime.StartContainer(pb.StartContainerRequest(container_id=container_id))

    def start(self) -> None:
        self.cri.runtime.StartContainer(pb.StartContainerRequest(container_id=self.container()))

    def stop(self) -> None:
        timeout = self.chance.choice([0, 0, 1])
        self.cri.runtime.StopContainer(
            pb.StopContainerRequest(container_id=self.container(), timeout=timeout)
        )

    def remove(self) -> None:
        container_id = self.container()
        self.cri.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=container_id))
        self.forget()

    def execute(self) -> None:
        command = self.chance.choice(
            [["true"], ["sleep", "5"], ["none"], ["sh", "-c", "yes | head -c 99999"]]
        )
        request = pb.ExecSyncRequest(container_id=self.container(), cmd=command, timeout=1)
        self.cri.runtime.ExecSync(request)

    def inspect(self) -> None:
        self.cri.runtime.ContainerStatus(
            pb.ContainerStatusRequest(container_id=self.container(), verbose=True)
        )

    def inspect_pod(self) -> None:
        self.cri.runtime.PodSandboxStatus(
            pb.PodSandboxStatusRequest(pod_sandbox_id=self.pod().id, verbose=True)
        )

    def update(self) -> None:
        linux = pb.LinuxContainerResources(
            memory_limit_in_bytes=64 << 20, cpu_shares=self.chance.randint(2, 99)
        )
        request = pb.UpdateContainerResourcesRequest(container_id=self.container(), linux=linux)
        self.cri.runtime.UpdateContainerResources(request)

    def reopen(self) -> None:
        self.cri.runtime.ReopenContainerLog(pb.ReopenContainerLogRequest(container_id=self.container()))

    def stats(self) -> None:
        self.cri.runtime.ListContainerStats(pb.ListContainerStatsRequest())
        self.cri.runtime.ListPodSandboxStats(pb.ListPodSandboxStatsRequest())
        self.cri.runtime.ListPodSandboxMetrics(pb.ListPodSandboxMetricsRequest())

    def events(self) -> None:
        stream = self.cri.runtime.GetContainerEvents(pb.GetEventsRequest(), timeout=5)
        with contextlib.suppress(grpc.RpcError):
            for _ in zip(range(self.chance.randrange(5)), stream, strict=False):
                pass
        stream.cancel()

    def pull(self) -> None:
        request = pb.PullImageRequest(image=pb.ImageSpec(image=self.world.name))
        self.cri.images.PullImage(request, timeout=self.chance.choice([0.002, 0.01, 20]))

    def stream(self) -> None:
        """Begins an exec, an attach or a port-forward, and walks away in the middle."""
        container_id, verb = self.container(), self.chance.randrange(3)
        runtime = self.cri.runtime
        if verb == 0:
            asked = pb.ExecRequest(container_id=container_id, cmd=["sleep", "9"], stdin=True, stdout=True)
            url = runtime.Exec(asked).url
        elif verb == 1:
            url = runtime.Attach(pb.AttachRequest(container_id=container_id, stdin=True, stdout=True)).url
        else:
            url = runtime.PortForward(pb.PortForwardRequest(pod_sandbox_id=self.pod().id, port=[80])).url
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port or 80), timeout=10) as line:
            line.sendall(
                f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                "Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n".encode()
            )
            if self.chance.random() < 0.7:
                line.recv(4096)


VERBS: list[Callable[[Client], None]] = [
    *[Client.run_pod] * 2,
    Client.stop_pod,
    Client.remove_pod,
    *[Client.create] * 5,
    *[Client.start] * 2,
    Client.stop,
    Client.remove,
    *[Client.execute] * 3,
    Client.inspect,
    Client.inspect_pod,
    Client.update,
    Client.reopen,
    Client.stats,
    Client.events,
    Client.pull,
    *[Client.stream] * 2,
]


@pytest.fixture
def daemon(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    with Daemon(Path(tempfile.mkdtemp(prefix="pf-")), {"pools": [{"name": "default", "size": 4}]}) as running:
        request.node.daemons = [running]
        yield running


def _blank(text: str) -> str:
    return re.sub(r"[0-9a-f]{12,}", "ID", text)


def slowest_list(cri: Cri, until: float) -> float:
    """Seconds that a node's list of everything took at most, asked for again and again."""
    slowest = 0.0
    while (began := time.monotonic()) < until:
        cri.pods()
        cri.containers()
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.2)
    return slowest


def crowd(daemon: Daemon, image: str, logs: Path, seconds: float) -> None:
    cri = Cri(daemon.endpoint)
    cri.pull(image)
    before = warmed_up(daemon, cri)
    world, until = World(cri.image, image, logs), time.monotonic() + seconds
    clients = [Client(daemon, world, seed) for seed in range(CLIENTS)]
    threads = [threading.Thread(target=client.run, args=(until,)) for client in clients]
    for thread in threads:
        thread.start()
    slowest = slowest_list(cri, until)
    for thread in threads:
        thread.join(60 * PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "a call does not come back"
    assert daemon.running.running()
    faults = Counter(_blank(fault) for fault in world.faults)
    assert not faults, faults
    assert "Traceback" not in daemon.log_text()
    assert slowest < LIST_SECONDS * PATIENCE
    done = {answer.removesuffix(" OK") for answer in world.answers if answer.endswith(" OK")}
    assert done >= {verb.__name__ for verb in VERBS}, f"some verbs never work: {world.answers}"
    assert refusal(lambda: Pod(cri, pb.PodSandboxConfig(), "none").status)[0] is grpc.StatusCode.NOT_FOUND
    cri.remove_pods()
    settled(daemon, cri)
    daemon.wait_for_no_traces(before)
    cri.close()


def test_fifty_clients(daemon: Daemon, busybox_image: str, tmp_path: Path) -> None:
    crowd(daemon, busybox_image, tmp_path, 10)


@pytest.mark.long
def test_fifty_clients_for_minutes(daemon: Daemon, busybox_image: str, tmp_path: Path) -> None:
    crowd(daemon, busybox_image, tmp_path, 180)

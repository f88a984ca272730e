"""Port-forward: connections from here to servers inside a pod."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from harness.daemon import Daemon, free_port
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Container, Cri, Pod, refusal
from tests.e2e.lifecycle.conftest import PodMaker, Shared
from tests.e2e.streaming.client import Running, StreamClient
from tests.e2e.streaming.pod_server import ZEROS

pytestmark = pytest.mark.root

SERVER = Path(__file__).with_name("pod_server.py")
PORT = 9000


@pytest.fixture
def keeper(pod: Pod) -> Container:
    """Whose network namespace is the pod's."""
    return pod.start("sleep 1000")


@contextmanager
def serving(keeper: Container, behaviour: str, address: str = "127.0.0.1") -> Iterator[None]:
    """pod_server.py in the pod's network."""
    pid = json.loads(keeper.details)["pid"]
    command = [
        "nsenter",
        f"--net=/proc/{pid}/ns/net",
        sys.executable,
        str(SERVER),
        address,
        str(PORT),
        behaviour,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"listening\n"
            yield
        finally:
            process.kill()


@contextmanager
def forwarded(client: StreamClient, pod: Pod, port: int = PORT) -> Iterator[tuple[int, Running]]:
    """A port here that leads to the pod's."""
    local = free_port()
    with client.start("port-forward", pod.id, f"{local}:{port}") as running:
        running.read_until(b"Forwarding from 127.0.0.1")
        yield local, running


def ask(local: int, given: bytes = b"") -> bytes:
    """What the server answers until it ends the connection, having read all that was given."""
    with socket.create_connection(("127.0.0.1", local), timeout=30) as connection:
        connection.sendall(given)
        connection.shutdown(socket.SHUT_WR)
        found = bytearray()
        while piece := connection.recv(1 << 20):
            found += piece
        return bytes(found)


def test_both_ways_and_half_closed(client: StreamClient, pod: Pod, keeper: Container) -> None:
    given = os.urandom(20 << 20)
    with serving(keeper, "hash"), forwarded(client, pod) as (local, _):
        for content in (given, b"", b"x"):
            assert ask(local, content).decode() == hashlib.sha256(content).hexdigest()


def test_much_from_the_pod(client: StreamClient, pod: Pod, keeper: Container) -> None:
    with serving(keeper, "zeros"), forwarded(client, pod) as (local, _):
        assert ask(local) == bytes(ZEROS)


def test_many_connections_at_once(client: StreamClient, pod: Pod, keeper: Container) -> None:
    contents = [f"content {number}".encode() * 1000 for number in range(32)]
    with (
        serving(keeper, "hash"),
        forwarded(client, pod) as (local, _),
        ThreadPoolExecutor(16) as threads,
    ):
        answers = list(threads.map(lambda content: ask(local, content).decode(), contents))
    assert answers == [hashlib.sha256(content).hexdigest() for content in contents]


def test_a_server_on_ipv6_alone(client: StreamClient, pod: Pod, keeper: Container) -> None:
    with serving(keeper, "echo", "::1"), forwarded(client, pod) as (local, _):
        assert ask(local, b"six") == b"six"


def test_nobody_listens(client: StreamClient, pod: Pod, keeper: Container) -> None:
    with forwarded(client, pod) as (local, running):
        assert ask_refused(local)
        said = running.stderr().decode()
    assert "127.0.0.1: Connection refused" in said
    assert "::1: Connection refused" in said
    assert f"pod {pod.id}" in said


def ask_refused(local: int) -> bool:
    try:
        return ask(local) == b""
    except ConnectionError:
        return True


def test_a_pod_on_the_hosts_network(client: StreamClient, make_pod: PodMaker) -> None:
    host = pb.NamespaceOption(network=pb.NODE)
    context = pb.LinuxSandboxSecurityContext(namespace_options=host)
    pod = make_pod(linux=pb.LinuxPodSandboxConfig(security_context=context))
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        forwarded(client, pod, server.getsockname()[1]) as (local, _),
        socket.create_connection(("127.0.0.1", local), timeout=10) as near,
    ):
        far, _ = server.accept()
        with far:
            near.sendall(b"there")
            assert far.recv(10) == b"there"
            far.sendall(b"back")
            assert near.recv(10) == b"back"


def test_a_server_of_the_host_is_not_the_pods(client: StreamClient, pod: Pod) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        forwarded(client, pod, server.getsockname()[1]) as (local, _),
    ):
        assert ask_refused(local)


def test_a_client_that_is_killed_leaves_nothing(
    client: StreamClient, pod: Pod, keeper: Container, node: Daemon, shared: Shared
) -> None:
    with serving(keeper, "echo"):
        shared.cri.wait_pools_full()
        before = node.snapshot()
        with (
            forwarded(client, pod) as (local, running),
            socket.create_connection(("127.0.0.1", local), timeout=10) as connection,
        ):
            connection.sendall(b"x")
            assert connection.recv(10) == b"x"
            running.kill()
        node.wait_for_no_traces(before)


def test_the_pod_may_end_meanwhile(client: StreamClient, pod: Pod, keeper: Container) -> None:
    with (
        serving(keeper, "echo"),
        forwarded(client, pod) as (local, running),
        socket.create_connection(("127.0.0.1", local), timeout=10) as connection,
    ):
        connection.sendall(b"x")
        assert connection.recv(10) == b"x"
        pod.stop()
        assert ask_refused(local)
        assert "it is notready" in running.stderr().decode()


def test_only_ready_pods(cri: Cri, pod: Pod) -> None:
    def forward(sandbox_id: str) -> object:
        return cri.runtime.PortForward(pb.PortForwardRequest(pod_sandbox_id=sandbox_id))

    code, _ = refusal(lambda: forward("none"))
    assert code is grpc.StatusCode.NOT_FOUND
    pod.stop()
    code, text = refusal(lambda: forward(pod.id))
    assert (code, "notready" in text) == (grpc.StatusCode.FAILED_PRECONDITION, True)

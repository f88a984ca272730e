"""Connections of clients that are slow, silent, rude or gone: others are served, nothing of them stays."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness.daemon import Daemon
from harness.waiting import PATIENCE, wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Cri, Pod
from tests.e2e.lifecycle.conftest import settled, warmed_up

pytestmark = pytest.mark.root

MIB = 1 << 20
CROWD = 500
ANSWER_SECONDS = 3.0
"""In which others must be answered meanwhile."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6  # RFC 9113 6
END_STREAM, END_HEADERS = 1, 4


@pytest.fixture(scope="module")
def shared_cri(daemon: Daemon, busybox_image: str) -> Iterator[Cri]:
    client = Cri(daemon.endpoint)
    client.pull(busybox_image)
    yield client
    client.close()


@pytest.fixture
def cri(daemon: Daemon, shared_cri: Cri, request: pytest.FixtureRequest) -> Iterator[Cri]:
    """A client whose calls are answered at any moment; afterwards the daemon has what it had before."""
    request.node.daemons = [daemon]
    before = warmed_up(daemon, shared_cri)
    yield shared_cri
    served(shared_cri)
    shared_cri.remove_pods()
    settled(daemon, shared_cri)
    daemon.wait_for_no_traces(before)


def served(cri: Cri) -> None:
    began = time.monotonic()
    cri.pods()
    assert time.monotonic() - began < ANSWER_SECONDS * PATIENCE


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header_block(path: str) -> bytes:
    """Literal fields without indexing or Huffman codes, RFC 7541 6.2.2."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b""
    for name, value in fields.items():
        block += b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return block


def request_frames(method: str, message: bytes, stream: int = 1) -> bytes:
    body = struct.pack(">BI", 0, len(message)) + message
    path = f"/runtime.v1.RuntimeService/{method}"
    return frame(HEADERS, END_HEADERS, stream, header_block(path)) + frame(DATA, END_STREAM, stream, body)


def hello(window: int = 65535) -> bytes:
    """A preface and settings; `window`: how much of an answer may come unasked, RFC 9113 6.5.2."""
    return PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, window))


def dial(daemon: Daemon) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(20)
    line.connect(str(daemon.socket))
    return line


def dial_streams(cri: Cri, container_id: str) -> socket.socket:
    asked = pb.ExecRequest(container_id=container_id, cmd=["true"], stdout=True)
    parts = urlsplit(cri.runtime.Exec(asked).url)
    return socket.create_connection((parts.hostname, parts.port or 0), timeout=20)


def closed(line: socket.socket) -> bool:
    """Reads what there is, and tells whether it is the end."""
    line.setblocking(False)
    try:
        while line.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def running(cri: Cri, tmp_path: Path) -> str:
    """The id of a container that does nothing."""
    return cri.pod(tmp_path).run_sandbox().start("sleep 1000").id


@pytest.fixture
def bulky(cri: Cri, tmp_path: Path) -> Pod:
    """A pod whose containers take 12 MB to list."""
    pod = cri.pod(tmp_path).run_sandbox()
    for _ in range(4):
        pod.create("true", annotations={f"a{number}": "x" * 250_000 for number in range(12)})
    return pod


def test_who_does_not_read_a_big_answer(daemon: Daemon, cri: Cri, bulky: Pod) -> None:
    resident = resident_bytes(daemon.running.pid)
    with contextlib.ExitStack() as stack:
        for window in (0, 1000, 2**31 - 1):
            for _ in range(5):
                line = stack.enter_context(dial(daemon))
                line.sendall(hello(window) + request_frames("ListContainers", b""))
        for _ in range(10):
            served(cri)
        assert resident_bytes(daemon.running.pid) < resident + 800 * MIB
    assert len(cri.containers()) == 4
    wait_until(
        lambda: resident_bytes(daemon.running.pid) < resident + 200 * MIB, "the answers to be dropped", 20
    )


@pytest.mark.parametrize("method", ["StreamContainers", "GetContainerEvents", "ListContainers"])
def test_who_leaves_in_the_middle_of_an_answer(daemon: Daemon, cri: Cri, bulky: Pod, method: str) -> None:
    for read in (0, 1, 9, 100_000):
        with dial(daemon) as line:
            line.sendall(hello() + request_frames(method, b""))
            if read:
                line.recv(read)
    served(cri)


def test_slow_readers_of_events_and_lists(daemon: Daemon, cri: Cri, bulky: Pod) -> None:
    """Meanwhile a good reader of events misses none."""
    with contextlib.ExitStack() as stack:
        for method in ("GetContainerEvents", "StreamContainers", "StreamPodSandboxes"):
            for _ in range(5):
                line = stack.enter_context(dial(daemon))
                line.sendall(hello(window=10) + request_frames(method, b""))
        events = cri.runtime.GetContainerEvents(pb.GetEventsRequest(), timeout=60)
        events.initial_metadata()  # it has begun
        made = [bulky.run("true").id for _ in range(10)]
        wanted = {(container, kind) for container in made for kind in (0, 1, 2)}
        for event in events:
            wanted.discard((event.container_id, event.container_event_type))
            if not wanted:
                break
        events.cancel()


@pytest.mark.parametrize(
    "noise",
    [
        b"\0" * 100_000,
        b"GET / HTTP/1.1\r\n\r\n",
        PREFACE,
        PREFACE + b"\xff" * 9,
        PREFACE + frame(0xEE, 0xFF, 0x7FFFFFFF, b"x" * 16384),
        hello() + frame(HEADERS, END_HEADERS, 1, b"\xff" * 400),
        hello() + frame(HEADERS, END_HEADERS, 2, header_block("/none")),
        hello() + frame(DATA, 0, 99, b"x"),
        hello() + frame(PING, 0, 0, b"12345678") * 5000,
        hello() + b"".join(frame(3, 0, stream, struct.pack(">I", 8)) for stream in range(1, 9999, 2)),
        hello() + b"".join(
            frame(HEADERS, END_HEADERS, stream, header_block("/runtime.v1.RuntimeService/Version"))
            + frame(3, 0, stream, struct.pack(">I", 8))
            for stream in range(1, 4001, 2)
        ),
    ],
    ids=[
        "zeros", "HTTP 1", "a preface alone", "a frame of 16 MiB", "a frame of no kind", "no headers",
        "an even stream", "data of no stream", "pings", "resets", "requests taken back at once",
    ],
)  # fmt: skip
def test_noise_at_the_cri_socket(daemon: Daemon, cri: Cri, noise: bytes) -> None:
    with dial(daemon) as line:
        with contextlib.suppress(ConnectionError, TimeoutError):
            line.sendall(noise)
        served(cri)


def test_random_bytes(daemon: Daemon, cri: Cri, running: str) -> None:
    chance = random.Random(5)
    doors: list[Callable[[], socket.socket]] = [lambda: dial(daemon), lambda: dial_streams(cri, running)]
    for _ in range(40):
        for door in doors:
            with door() as line, contextlib.suppress(ConnectionError):
                line.sendall(chance.choice([b"", PREFACE]) + chance.randbytes(chance.randrange(1, 5000)))
    served(cri)


@pytest.mark.parametrize("method", ["Version", "ListContainers", "GetContainerEvents"])
def test_half_a_request(daemon: Daemon, cri: Cri, method: str) -> None:
    """Cut off at any byte, while others do the same."""
    whole = hello() + request_frames(method, b"")
    with contextlib.ExitStack() as stack:
        for end in range(1, len(whole), 3):
            stack.enter_context(dial(daemon)).sendall(whole[:end])
        served(cri)


def test_many_that_say_nothing(daemon: Daemon, cri: Cri, running: str) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(CROWD):
            stack.enter_context(dial(daemon))
        for _ in range(CROWD // 5):
            stack.enter_context(dial_streams(cri, running))
        served(cri)
        with dial(daemon) as late:
            late.sendall(hello() + request_frames("Version", b""))
            assert late.recv(9), "one more is welcome"


def test_noise_at_the_streaming_port(daemon: Daemon, cri: Cri, running: str) -> None:
    """It is told, or at least ended."""
    lines = [dial_streams(cri, running) for _ in range(4)]
    for line, noise in zip(
        lines,
        [b"\0" * 100_000, hello(), b"GET /exec/none HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /" + b"x" * 200_000],
        strict=True,
    ):
        with contextlib.suppress(ConnectionError):
            line.sendall(noise)
        wait_until(lambda line=line: closed(line), f"{noise[:20]!r} to be ended")  # type: ignore[misc]
        line.close()

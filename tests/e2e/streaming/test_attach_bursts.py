"""Attach under bursts: who reads gets all of it, however busy the node is; who does not is let go alone."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.daemon import Daemon
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Container, Pod
from tests.e2e.streaming.client import Running, StreamClient
from tests.e2e.streaming.test_attach import attached

pytestmark = pytest.mark.root

MIB = 1 << 20
LINES = 8_000_000
"""`seq` to this is nearly 64 MiB, and every part of it differs from the others."""

BURST_BYTES = sum(9 * 10**digits * (digits + 2) for digits in range(6)) + 7_000_001 * 8

BURST = f"seq 1 {LINES} >/tmp/burst; echo made; while read x; do cat /tmp/burst; echo end; done"


@pytest.fixture
def busy_node() -> Iterator[None]:
    """Twice as many programs as processors, that do nothing but run."""
    with contextlib.ExitStack() as stack:
        for _ in range(2 * (os.cpu_count() or 1)):
            spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(spinner.wait)
            stack.callback(spinner.kill)
        yield


@functools.cache
def burst_digest() -> str:
    digest = hashlib.sha256()
    for start in range(1, LINES + 1, 100_000):
        stop = min(start + 100_000, LINES + 1)
        digest.update("".join(f"{number}\n" for number in range(start, stop)).encode())
    digest.update(b"end\n")
    return digest.hexdigest()


def ready(pod: Pod) -> Container:
    container = pod.start(BURST, stdin=True)
    wait_until(lambda: "made" in container.output, "the burst to be made", 60)
    return container


def digest_until_end(running: Running) -> str:
    digest, last = hashlib.sha256(), b""
    while not last.endswith(b"\nend\n"):
        piece = os.read(running.stdout, MIB)
        if not piece:
            raise AssertionError(f"let go: {running.stderr()!r}")
        digest.update(piece)
        last = (last + piece)[-5:]
    return digest.hexdigest()


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_burst_comes_whole_on_a_busy_node(client: StreamClient, pod: Pod, busy_node: None) -> None:
    container = ready(pod)
    with client.start("attach", "-i", container.id) as running:
        wait_until(lambda: attached(container, 1), "the client to be attached")
        running.write(b"go\n")
        assert digest_until_end(running) == burst_digest()


def test_who_does_not_read_is_let_go_and_nobody_else_notices(
    spdy: StreamClient, pod: Pod, node: Daemon
) -> None:
    container = ready(pod)
    resident = resident_bytes(node.running.pid)
    with spdy.start("attach", container.id) as asleep, spdy.start("attach", "-i", container.id) as awake:
        wait_until(lambda: attached(container, 2), "both to be attached")
        asleep.process.send_signal(signal.SIGSTOP)
        for _ in range(3):  # two of them are about what may be kept for a client, here and in its socket
            awake.write(b"go\n")
            assert digest_until_end(awake) == burst_digest()
        wait_until(lambda: attached(container, 1), "the one that sleeps to be let go")
        wait_until(
            lambda: resident_bytes(node.running.pid) < resident + 8 * MIB, "the memory to be given back"
        )
        asleep.process.send_signal(signal.SIGCONT)
        asleep.rest()
        assert asleep.wait() != 0
        assert b"faster than the client read" in asleep.stderr()
    log = Path(container.status.log_path)
    before_text = log.read_bytes().index(b"made\n")
    logged = log.stat().st_size - (1 + 3 * (LINES + 1)) * before_text
    assert logged == len("made\n") + 3 * (BURST_BYTES + len("end\n"))
    assert container.status.state == pb.CONTAINER_RUNNING


def test_who_pauses_for_less_than_the_room_misses_nothing(spdy: StreamClient, pod: Pod) -> None:
    script = "seq 1 1300000 >/tmp/burst; echo made; read x; cat /tmp/burst; read x; echo end; read x"
    container = pod.start(script, stdin=True)
    container.wait_output("made")
    with spdy.start("attach", container.id) as running, spdy.start("attach", "-i", container.id) as typing:
        wait_until(lambda: attached(container, 2), "both to be attached")
        running.process.send_signal(signal.SIGSTOP)
        typing.write(b"go\n")
        typing.read_until(b"\n1300000\n")
        running.process.send_signal(signal.SIGCONT)
        typing.write(b"end\n")
        numbers = "".join(f"{number}\n" for number in range(1, 1_300_001)).encode()
        assert running.read_until(b"\nend\n") == numbers + b"end\n"

"""`phantom exec`, `attach` and `logs` over a real streaming server; keys, sizes and the ends of logs."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantom_cri.api.cri.v1 import api_pb2 as cri
from phantom_cri.cli.failure import Failure
from phantom_cri.cli.logs import LogFollower
from phantom_cri.cli.pods import match_container
from phantom_cri.cli.terminal import DETACH_KEYS, DetachKeys
from phantom_cri.codec import replace
from phantom_cri.streaming import StreamServer
from tests.unit.cli.fake_daemon import FakeDaemon, Outcome, Script, phantom, serving
from tests.unit.streaming.sessions import until

BUSYBOX = "registry.test/busybox:1"
ALIVE, DEAD = cri.ContainerState.CONTAINER_RUNNING, cri.ContainerState.CONTAINER_EXITED


class Node:
    def __init__(self, daemon: FakeDaemon, host: str) -> None:
        self.daemon, self.host = daemon, host

    async def phantom(self, *arguments: str, stdin: bytes = b"") -> Outcome:
        return await phantom(self.host, *arguments, stdin=stdin)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """With one running container in a pod named p."""
    daemon = FakeDaemon()
    daemon.streams = StreamServer()
    daemon.script = Script(exit_code=None, lines=(("stdout", "one\ntwo\n"), ("stderr", "err\n")))
    await daemon.streams.start()
    async with serving(daemon, tmp_path / "s") as host:
        node = Node(daemon, host)
        logs = f"--log-dir={tmp_path}/logs"
        started = await node.phantom("run", "-d", "--name=p", logs, BUSYBOX)
        assert started.code == 0, started.err
        yield node
    await daemon.streams.close()


async def test_exec_keeps_outputs_apart_and_answers_the_code(node: Node) -> None:
    outcome = await node.phantom("exec", "p", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (outcome.code, outcome.out, outcome.err) == (3, "out\n", "err\n")


async def test_exec_passes_its_input_on_to_the_end(node: Node) -> None:
    outcome = await node.phantom("exec", "-i", "p", "wc", "-c", stdin=b"x" * 1_234_567)
    assert (outcome.code, outcome.out.strip()) == (0, "1234567")


async def test_flags_behind_the_pod_belong_to_the_command(node: Node) -> None:
    outcome = await node.phantom("exec", "p", "echo", "-i", "--tty")
    assert outcome.out == "-i --tty\n"


async def test_attach_copies_both_ways(node: Node) -> None:
    node.daemon.attached = ("sh", "-c", "read x; echo got $x; echo err >&2")
    (container,) = node.daemon.containers.values()
    node.daemon.containers[container.id] = _with(container, stdin=True)
    outcome = await node.phantom("attach", "p", stdin=b"it\n")
    assert (outcome.code, outcome.out, outcome.err) == (0, "got it\n", "err\n")


def _with(record: Any, **config: Any) -> Any:
    return replace(record, config=replace(record.config, **config))


async def test_a_server_that_goes_away_is_a_failure(node: Node) -> None:
    waiting = asyncio.create_task(node.phantom("exec", "p", "sleep", "1000"))
    await until(lambda: node.daemon.opener and node.daemon.opener.session)
    assert node.daemon.streams
    await node.daemon.streams.close()
    outcome = await waiting
    assert outcome.code == 1
    assert "the container runtime was stopped" in outcome.err


def at_terminal(node: Node, terminal: int, *command: str) -> subprocess.Popen[bytes]:
    """`phantom exec -it` of `command`."""
    return subprocess.Popen(
        [sys.executable, "-m", "phantom_cri.cli", "--host", node.host, "exec", "-it", "p", *command],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )


async def test_a_terminal_is_raw_meanwhile_and_as_before_afterwards(node: Node) -> None:
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 31, 97, 0, 0))
    before = termios.tcgetattr(slave)
    script = "until test \"$(stty size)\" = '31 97'; do sleep 0.05; done; echo ready; read x; exit 5"
    process = at_terminal(node, slave, "sh", "-c", script)
    seen = b""
    while b"ready" not in seen:
        seen += await asyncio.to_thread(os.read, master, 4096)
    assert not termios.tcgetattr(slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    os.write(master, b"go\r")
    assert await asyncio.to_thread(process.wait, 20) == 5
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


async def test_a_terminal_is_given_back_after_a_signal(node: Node) -> None:
    master, slave = os.openpty()
    before = termios.tcgetattr(slave)
    process = at_terminal(node, slave, "cat")
    await until(lambda: termios.tcgetattr(slave) != before)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 20) == 130
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


async def test_logs(node: Node) -> None:
    outcome = await node.phantom("logs", "p")
    assert (outcome.code, outcome.out, outcome.err) == (0, "one\ntwo\n", "err\n")
    outcome = await node.phantom("logs", "--tail=2", "-t", "p")
    stamp = "2026-01-02T03:04:05.000000006Z"
    assert (outcome.out, outcome.err) == (f"{stamp} two\n", f"{stamp} err\n")
    assert (await node.phantom("logs", "--since", "2026-01-02T03:04:06Z", "p")).out == ""
    assert (await node.phantom("logs", "--since", "2026-01-02T03:04:05Z", "p")).out == "one\ntwo\n"
    assert '"text": "two\\n"' in (await node.phantom("logs", "--json", "p")).out


def append(path: str, text: str) -> None:
    with Path(path).open("a") as log:
        log.write(text)


async def test_logs_are_followed_to_the_end(node: Node) -> None:
    (container,) = node.daemon.containers.values()
    following = asyncio.create_task(node.phantom("logs", "-f", "p"))
    await asyncio.sleep(0.7)
    append(container.log_path, "2026-01-02T03:04:07.5Z stdout F three\n")
    node.daemon._exit(container.id, 0, "Completed")
    assert (await following).out == "one\ntwo\nthree\n"


@given(st.lists(st.sampled_from([b"a", b"\x10", b"\x11", b"\x10\x11", b"b\x10"]), max_size=12))
def test_detach_keys_lose_no_other_key(pieces: list[bytes]) -> None:
    keys, passed, detached = DetachKeys(), b"", False
    for piece in pieces:
        part, detached = keys.pass_on(piece)
        passed += part
        if detached:
            break
    typed = b"".join(pieces)
    if detached:
        assert passed == typed[: typed.index(DETACH_KEYS)]
    else:
        held = b"\x10" if typed.endswith(b"\x10") else b""
        assert passed + held == typed
        assert DETACH_KEYS not in typed


def container(id: str, name: str, pod: str, state: cri.ContainerState = ALIVE) -> cri.Container:
    metadata = cri.ContainerMetadata(name=name)
    return cri.Container(id=id, pod_sandbox_id=pod, metadata=metadata, state=state)


PODS = [cri.PodSandbox(id=f"pod{n}", metadata=cri.PodSandboxMetadata(name=f"name{n}")) for n in (1, 2, 3)]
CONTAINERS = [
    container("c1", "app", "pod1"),
    container("c2", "side", "pod1"),
    container("c3", "app", "pod2", DEAD),
    container("c4", "app", "pod3"),
    container("c5", "app", "pod3", DEAD),
]


@pytest.mark.parametrize(
    ("name", "inside", "running", "found"),
    [
        ("c1", "", True, "c1"),
        ("c3", "", False, "c3"),
        ("pod2", "", False, "c3"),
        ("name1", "side", True, "c2"),
        ("name3", "", True, "c4"),
        ("name3", "", False, "c4"),
    ],
)
def test_names_of_containers(name: str, inside: str, running: bool, found: str) -> None:
    assert match_container(name, inside, PODS, CONTAINERS, running=running).id == found


@pytest.mark.parametrize(
    ("name", "inside", "text"),
    [
        ("name1", "", "has 2 containers"),
        ("name1", "nobody", "No such container: nobody"),
        ("name2", "", "is not running"),
        ("c3", "", "is not running"),
        ("nobody", "", "No such pod: nobody"),
    ],
)
def test_names_that_lead_to_no_container(name: str, inside: str, text: str) -> None:
    with pytest.raises(Failure, match=text):
        match_container(name, inside, PODS, CONTAINERS, running=True)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=12), st.integers(0, 14))
def test_the_tail_of_a_log(tmp_path_factory: Any, parts: list[tuple[int, bool]], count: int) -> None:
    path = tmp_path_factory.mktemp("logs") / "0.log"
    lines = [f"2026-01-01T00:00:00Z stdout {'PF'[whole]} {'x' * size}" for size, whole in parts]
    path.write_text("".join(line + "\n" for line in lines))
    log = LogFollower(str(path))
    everything = b"".join(line.text for line in log.read())
    log.close()
    tail = LogFollower(str(path))
    tail.seek_tail(count)
    found = b"".join(line.text for line in tail.read())
    tail.close()
    assert everything.endswith(found)
    assert found.count(b"\n") == min(count, everything.count(b"\n"))


def test_a_log_that_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    line = "2026-01-01T00:00:00Z stdout F {}\n"
    path.write_text(line.format("one"))
    log = LogFollower(str(path))
    assert [found.text for found in log.read()] == [b"one\n"]
    with path.open("a") as old:
        path.rename(tmp_path / "0.log.old")
        old.write(line.format("two"))
    path.write_text(line.format("three"))
    assert [found.text for found in log.read()] == [b"two\n", b"three\n"]
    log.close()

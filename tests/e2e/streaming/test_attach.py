"""Attach: clients at the input and output of a container's own process."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import grpc
import pytest

from harness.daemon import Daemon
from harness.host import open_files
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Container, Cri, Pod, refusal
from tests.e2e.lifecycle.conftest import Shared
from tests.e2e.streaming.client import StreamClient

pytestmark = pytest.mark.root

ECHO = 'echo ready; while read x; do echo "out $x"; echo "err $x" >&2; done; echo end'


def test_input_and_output(client: StreamClient, pod: Pod) -> None:
    container = pod.start(ECHO, stdin=True)
    container.wait_output("ready")
    with client.start("attach", "-i", container.id) as running:
        running.write(b"one\n")
        assert running.read_until(b"out one\n") == b"out one\n", "old output does not come again"
        container.wait_output("err one")
    assert [line.text for line in container.log if line.stream == "stdout"] == ["ready", "out one"]
    assert container.status.state == pb.CONTAINER_RUNNING


def test_streams_apart(client: StreamClient, pod: Pod) -> None:
    container = pod.start("read x; echo out; echo err >&2; exit 3", stdin=True)
    with client.start("attach", "-i", container.id) as running:
        running.write(b"go\n")
        assert running.rest() == b"out\n"
        assert running.wait() == 0, "how the container ends is not the client's failure"
        assert running.stderr() == b"err\n"
    assert container.wait_exited().exit_code == 3


def test_nobody_has_to_be_attached(pod: Pod) -> None:
    container = pod.start("echo ready; read x; echo got $x", stdin=True, stdin_once=True)
    container.wait_output("ready")
    waits_for_input = "grep -q ' S ' /proc/1/stat && readlink /proc/1/fd/0"
    assert container.exec(waits_for_input).stdout.startswith(b"pipe:")
    assert container.status.state == pb.CONTAINER_RUNNING
    assert container.output == "ready"


def test_the_clients_end_is_not_the_containers(client: StreamClient, pod: Pod) -> None:
    container = pod.start(ECHO, stdin=True)
    for word in ("one", "two"):
        with client.start("attach", "-i", container.id) as running:
            running.write(word.encode() + b"\n")
            running.read_until(f"out {word}\n".encode())
            running.end_input()
            assert running.wait() == 0
    assert container.status.state == pb.CONTAINER_RUNNING
    assert "end" not in container.output


def test_input_once(client: StreamClient, pod: Pod) -> None:
    container = pod.start("wc -c; echo end", stdin=True, stdin_once=True)
    with client.start("attach", "-i", container.id) as running:
        running.write(bytes(5 << 20))
        running.end_input()
        assert running.rest() == b"%d\nend\n" % (5 << 20)
        assert running.wait() == 0
    assert container.wait_exited().exit_code == 0


def test_input_once_ends_with_a_client_that_is_killed(client: StreamClient, pod: Pod) -> None:
    container = pod.start(ECHO, stdin=True, stdin_once=True)
    with client.start("attach", "-i", container.id) as running:
        running.write(b"one\n")
        running.read_until(b"out one\n")
        with client.start("attach", "-i", container.id) as late:
            wait_until(lambda: attached(container, 2), "the second to be attached")
            late.write(b"lost\n")
            running.write(b"two\n")
            late.read_until(b"out two\n")
            running.kill()
            assert late.rest().endswith(b"end\n")
    assert "lost" not in container.output
    assert container.wait_exited().exit_code == 0


def test_a_container_without_input(client: StreamClient, pod: Pod) -> None:
    container = pod.start("until test -e /tmp/go; do sleep 0.05; done; wc -c; echo end")
    with client.start("attach", "-i", container.id) as running:
        running.write(b"nobody reads this\n")
        running.end_input()
        wait_until(lambda: attached(container, 1), "the client to be attached")
        container.exec("touch", "/tmp/go")
        assert running.rest() == b"0\nend\n"
        assert running.wait() == 0


def attached(container: Container, clients: int) -> bool:
    """Whether the fragment, whose child the container is, has the sockets of so many clients' outputs."""
    status = Path(f"/proc/{pid_of(container)}/status").read_text()
    fragment = next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:"))
    sockets = (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    nameless = {f"socket:[{words[6]}]" for words in sockets if len(words) == 7}
    return sum(file in nameless for file in open_files(int(fragment))) // 2 == clients


def pid_of(container: Container) -> int:
    return int(json.loads(container.details)["pid"])


def test_a_terminal(client: StreamClient, pod: Pod) -> None:
    container = pod.start(["sh"], stdin=True, tty=True)
    with client.terminal("attach", container.id, width=91, height=33) as running:
        running.write(b"until test \"$(stty size)\" = '33 91'; do sleep 0.1; done; echo si''zed\n")
        running.read_until(b"sized\r\n")
        running.resize(57, 11)
        running.write(b"until test \"$(stty size)\" = '11 57'; do sleep 0.1; done; echo res''ized\n")
        running.read_until(b"resized\r\n")
        with client.terminal("attach", container.id) as other:
            other.write(b"echo from an''other\n")
            running.read_until(b"from another\r\n")
            other.read_until(b"from another\r\n")
        running.write(b"exit 0\n")
        running.rest()
        assert running.wait() == 0
    assert container.wait_exited().exit_code == 0
    assert "resized" in container.output.split("\n")


def test_many_clients_get_the_same(spdy: StreamClient, pod: Pod) -> None:
    container = pod.start("read x; seq 1 50000; read x", stdin=True)
    wanted = "".join(f"{number}\n" for number in range(1, 50001)).encode()
    with contextlib.ExitStack() as stack:
        watching = [stack.enter_context(spdy.start("attach", container.id)) for _ in range(6)]
        wait_until(lambda: attached(container, len(watching)), "all to be attached")
        with spdy.start("attach", "-i", container.id) as typing:
            typing.write(b"go\n")
            for running in watching:
                assert running.read_until(b"\n50000\n") == wanted
            assert typing.read_until(b"\n50000\n") == wanted
            typing.write(b"end\n")
            assert [running.wait() for running in watching] == [0] * len(watching)
    assert container.output + "\n" == wanted.decode()


def test_more_clients_than_there_is_room_for(spdy: StreamClient, pod: Pod) -> None:
    container = pod.start("sleep 100")
    with contextlib.ExitStack() as stack:
        for _ in range(16):
            stack.enter_context(spdy.start("attach", container.id))
        wait_until(lambda: attached(container, 16), "all to be attached", 20)
        done = spdy.run("attach", container.id)
        assert done.returncode != 0
        assert b"too many clients" in done.stderr
    wait_until(lambda: attached(container, 0), "all to be gone")


def test_clients_that_are_killed_leave_nothing(
    client: StreamClient, pod: Pod, node: Daemon, shared: Shared
) -> None:
    container = pod.start("while :; do echo more; sleep 0.01; done", stdin=True)
    shared.cri.wait_pools_full()
    before = node.snapshot()
    for _ in range(3):
        with client.start("attach", "-i", container.id) as running:
            running.read_until(b"more\n")
    node.wait_for_no_traces(before)
    wait_until(lambda: attached(container, 0), "the fragment to know")


def test_the_pod_may_end_meanwhile(client: StreamClient, pod: Pod) -> None:
    container = pod.start("while :; do echo more; sleep 0.01; done")
    with client.start("attach", container.id) as running:
        running.read_until(b"more\n")
        pod.remove()
        running.rest()
        assert running.wait() == 0


def test_only_what_runs_can_be_attached_to(cri: Cri, pod: Pod) -> None:
    def attach(container_id: str) -> object:
        return cri.runtime.Attach(pb.AttachRequest(container_id=container_id, stdout=True))

    code, _ = refusal(lambda: attach("none"))
    assert code is grpc.StatusCode.NOT_FOUND
    ended = pod.run("true")
    code, text = refusal(lambda: attach(ended.id))
    assert (code, "exited" in text) == (grpc.StatusCode.FAILED_PRECONDITION, True)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_later_daemon_attaches_to_what_an_earlier_one_started(
    make_daemon: DaemonMaker, busybox_image: str, tmp_path: Path, end: str
) -> None:
    daemon = make_daemon({"pools": []}).start()
    cri = Cri(daemon.endpoint)
    cri.pull(busybox_image)
    pod = cri.pod(tmp_path).run_sandbox()
    container, once = pod.start(ECHO, stdin=True), pod.start(ECHO, stdin=True, stdin_once=True)
    client = StreamClient(daemon.endpoint, "spdy")
    with (
        client.start("attach", "-i", container.id) as running,
        client.start("attach", "-i", once.id) as owner,
        client.start("exec", "-i", container.id, "sh", "-c", "echo on; sleep 5381") as executing,
    ):
        running.write(b"one\n")
        running.read_until(b"out one\n")
        owner.write(b"one\n")
        owner.read_until(b"out one\n")
        executing.read_until(b"on\n")
        (daemon.stop if end == "stop" else daemon.kill)()
        for left in (running, owner, executing):
            left.rest()
            left.wait()
    daemon.start()
    cri.wait_served()
    assert once.wait_exited().exit_code == 0, "its only client has gone"
    assert not container.exec("pgrep", "-f", "^sleep 5381").stdout
    with client.start("attach", "-i", container.id) as running:
        running.write(b"two\n")
        assert running.read_until(b"out two\n") == b"out two\n"
        container.wait_output("out two")
    assert [line.text for line in container.log if line.stream == "stdout"] == ["ready", "out one", "out two"]
    cri.close()

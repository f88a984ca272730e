"""logs, exec, attach, cp, port-forward and debug, by kubectl."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.cluster.cluster import BUSYBOX
from harness.cluster.kubectl import KubectlError
from tests.e2e.cluster.kube import Kube, container
from tests.e2e.cluster.manifests import STAY, WEB, needs, pod, run

pytestmark = pytest.mark.root

TALKER = pod("talker", run(STAY, env=[{"name": "WORD", "value": "a word"}]))
ECHO = "while read -r line; do echo got $line; echo warned >&2; done"


@needs(pod("chatty", run("for n in 1 2 3; do echo line $n; sleep 0.3; done; echo end >&2")))
def test_logs_are_followed_to_their_end(kube: Kube) -> None:
    kube.wait(
        "chatty",
        lambda pod: container(pod)["state"].get("running") or container(pod)["state"].get("terminated"),
    )
    assert kube.kubectl.run("logs", "-f", "chatty").splitlines() == ["line 1", "line 2", "line 3", "end"]
    assert kube.kubectl.run("logs", "--tail=2", "chatty").splitlines() == ["line 3", "end"]
    assert re.match(r"20\d\d-\d\d-\d\dT[\d:.]+Z line 1\n", kube.kubectl.run("logs", "--timestamps", "chatty"))


@needs(
    pod(
        "reborn",
        run(
            f"[ -e /keep/been ] && {{ echo second; {STAY}; }}; echo first; touch /keep/been; exit 1",
            volumeMounts=[{"name": "keep", "mountPath": "/keep"}],
        ),
        restartPolicy="Always",
        volumes=[{"name": "keep", "emptyDir": {}}],
    )
)
def test_logs_of_the_previous_container_are_kept(kube: Kube) -> None:
    kube.wait("reborn", lambda pod: container(pod)["restartCount"] == 1 and container(pod)["ready"])
    assert kube.kubectl.run("logs", "--previous", "reborn") == "first\n"
    assert kube.kubectl.run("logs", "reborn") == "second\n"


@needs(TALKER)
def test_exec_passes_output_input_and_status(kube: Kube) -> None:
    kube.ready("talker")
    assert kube.sh("talker", "echo $WORD; pwd; id -u") == "a word\n/\n0\n"
    assert kube.kubectl.run("exec", "-i", "talker", "--", "wc", "-c", stdin="x" * 100_000).strip() == "100000"
    with pytest.raises(KubectlError) as failed:
        kube.sh("talker", "echo out; echo err >&2; exit 3")
    assert (failed.value.status, failed.value.stdout) == (3, "out\n")
    assert failed.value.stderr.splitlines() == ["err", "command terminated with exit code 3"]
    with pytest.raises(KubectlError, match="/nothing"):
        kube.kubectl.run("exec", "talker", "--", "/nothing")


@needs(TALKER)
def test_exec_has_a_terminal(kube: Kube) -> None:
    kube.ready("talker")
    ours, theirs = pty.openpty()
    command = kube.kubectl.command("exec", "-it", "talker", "--", "sh", "-c", "tty; stty size; exit 4")
    os.set_blocking(ours, True)
    subprocess.run(["stty", "rows", "33", "cols", "99"], stdin=theirs, check=True)
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=kube.kubectl.environment
    ) as child:
        assert child.wait(30) == 4
    os.close(theirs)
    output = os.read(ours, 4096).decode()
    os.close(ours)
    assert "/dev/pts/0" in output
    assert "33 99" in output


@needs(pod("listener", run(ECHO, stdin=True)), pod("terminal", run("tty; " + ECHO, stdin=True, tty=True)))
def test_attach_reaches_the_containers_own_streams(kube: Kube) -> None:
    kube.ready("listener")
    with kube.kubectl.start("attach", "-i", "listener") as attached:
        assert attached.stdin is not None and attached.stdout is not None
        attached.stdin.write("one\n")
        attached.stdin.flush()
        assert attached.stdout.readline() == "got one\n"
        attached.kill()
    assert set(kube.kubectl.run("logs", "listener").splitlines()) == {"got one", "warned"}
    kube.ready("terminal")
    assert "/dev/pts/0" in kube.kubectl.run("logs", "terminal")


@needs(TALKER)
def test_cp_copies_both_ways(kube: Kube, tmp_path: Path) -> None:
    kube.ready("talker")
    sent, back = tmp_path / "sent", tmp_path / "back"
    (sent / "sub").mkdir(parents=True)
    content = os.urandom(3 << 20)
    (sent / "sub" / "big").write_bytes(content)
    (sent / "empty").touch()
    (sent / "a name with spaces").write_text("x")
    kube.kubectl.run("cp", str(sent), "talker:/tmp/there")
    kube.kubectl.run("cp", "talker:/tmp/there", str(back))
    assert (back / "sub" / "big").read_bytes() == content
    assert {path.name for path in back.iterdir()} == {"sub", "empty", "a name with spaces"}
    kube.kubectl.run("cp", "talker:/etc/passwd", str(tmp_path / "passwd"))
    assert (tmp_path / "passwd").read_text().startswith("root:")


@contextmanager
def forwarded(kube: Kube, target: str, port: int) -> Iterator[int]:
    """The port on this machine that kubectl forwards to `port` of `target`."""
    with kube.kubectl.start("port-forward", target, f":{port}") as child:
        assert child.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+)", child.stdout.readline())
        assert found, child.stderr and child.stderr.read()
        try:
            yield int(found[1])
        finally:
            child.kill()


def get(address: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}", timeout=20) as answer:
        return bytes(answer.read())


@needs(pod("web", run("mkdir /www; dd if=/dev/zero of=/www/big bs=1M count=4; " + WEB)))
def test_port_forward_carries_several_connections(kube: Kube) -> None:
    kube.ready("web")
    with forwarded(kube, "pod/web", 80) as port, ThreadPoolExecutor(8) as threads:
        pages = ["big", "index.html"] * 8
        sizes = [len(page) for page in threads.map(get, (f"127.0.0.1:{port}/{page}" for page in pages))]
    assert sizes == [4 << 20, len("web\n")] * 8


@needs(TALKER)
def test_port_forward_to_a_closed_port_says_so(kube: Kube) -> None:
    kube.ready("talker")
    with kube.kubectl.start("port-forward", "talker", ":81") as child:
        assert child.stdout is not None and child.stderr is not None
        port = re.search(r"127\.0\.0\.1:(\d+)", child.stdout.readline())
        assert port
        with pytest.raises(OSError):
            get(f"127.0.0.1:{port[1]}/")
        assert "refused" in child.stderr.readline() + child.stderr.readline()
        child.kill()


@needs(pod("debugged", run("echo secret >/tmp/own; exec sleep 100000", securityContext={"runAsUser": 0})))
def test_debug_joins_a_containers_processes(kube: Kube) -> None:
    kube.ready("debugged")
    script = "cat /proc/1/root/tmp/own; tr '\\0' ' ' </proc/1/cmdline; ls /tmp"
    arguments = ["--image", BUSYBOX, "--target", "main", "--profile", "general", "-c", "debugger"]
    kube.kubectl.run("debug", "debugged", *arguments, "--", "sh", "-c", script)
    kube.wait("debugged", lambda pod: container(pod, "debugger")["state"].get("terminated"))
    assert kube.kubectl.run("logs", "debugged", "-c", "debugger") == "secret\nsleep 100000 "


def test_exec_in_a_pod_that_is_not_there_fails(kube: Kube) -> None:
    with pytest.raises(KubectlError, match='"nobody" not found'):
        kube.sh("nobody", "true")

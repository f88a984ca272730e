"""The streaming server as the daemon runs it: its address, its end, its numbers, and TLS."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness.daemon import Daemon, free_port
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Container, Cri
from tests.e2e.streaming.client import StreamClient

pytestmark = pytest.mark.root


def started(daemon: Daemon, image: str, logs: Path) -> tuple[Cri, Container]:
    cri = Cri(daemon.start().endpoint)
    cri.pull(image)
    return cri, cri.pod(logs).run_sandbox().start("sleep 1000")


def exec_url(cri: Cri, container: Container) -> str:
    request = pb.ExecRequest(container_id=container.id, cmd=["echo", "x"], stdout=True)
    return str(cri.runtime.Exec(request).url)


def status_of(url: str) -> int:
    """What an upgrade at `url` is answered."""
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        head = f"POST {parts.path} HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        connection.sendall(f"{head}X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n".encode())
        return int(connection.recv(4096).split()[1])


def test_urls_die_with_their_daemon(make_daemon: DaemonMaker, busybox_image: str, tmp_path: Path) -> None:
    port = free_port()
    daemon = make_daemon({"pools": [], "streaming": {"port": port, "address": "127.0.0.2"}})
    cri, container = started(daemon, busybox_image, tmp_path)
    url, later = exec_url(cri, container), exec_url(cri, container)
    assert url.startswith(f"http://127.0.0.2:{port}/exec/")
    assert [status_of(url), status_of(url)] == [101, 404]
    daemon.restart()
    cri.wait_served()
    assert status_of(later) == 404
    assert status_of(exec_url(cri, container)) == 101
    cri.close()


def test_a_stop_ends_sessions_and_their_commands(
    make_daemon: DaemonMaker, busybox_image: str, tmp_path: Path
) -> None:
    daemon = make_daemon({"pools": []})
    cri, container = started(daemon, busybox_image, tmp_path)
    client = StreamClient(daemon.endpoint, "spdy")
    with (
        client.start("exec", "-i", container.id, "sh", "-c", "echo on; sleep 5391") as executing,
        client.start("attach", container.id) as watching,
    ):
        executing.read_until(b"on\n")
        wait_until(lambda: 'sessions{kind="attach"} 1.0' in daemon.metrics(), "the attach to be counted")
        assert 'phantom_streaming_sessions{kind="exec"} 1.0' in daemon.metrics()
        assert daemon.stop() == 0
        for running in (executing, watching):
            running.rest()
            assert running.wait() != 0, "the client knows that this was not the end"
            assert b"the container runtime was stopped" in running.stderr()
    daemon.start()
    cri.wait_served()
    assert not container.exec("pgrep", "-f", "^sleep 5391").stdout
    assert container.status.state == pb.CONTAINER_RUNNING
    cri.close()


def test_a_port_that_is_taken_stops_the_daemon(make_daemon: DaemonMaker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        daemon = make_daemon({"pools": [], "streaming": {"port": other.getsockname()[1]}})
        child = daemon.launch()
        wait_until(lambda: not child.running(), "the daemon to give up")
        assert "streaming: cannot listen at 127.0.0.1:" in child.log_text()


def test_tls(make_daemon: DaemonMaker, busybox_image: str, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    files = {"tls_cert_file": str(certificate), "tls_key_file": str(key)}
    daemon = make_daemon({"pools": [], "streaming": files})
    cri, container = started(daemon, busybox_image, tmp_path)
    assert exec_url(cri, container).startswith("https://127.0.0.1:")
    for transport in ("spdy", "websocket"):
        client = StreamClient(daemon.endpoint, transport)
        # crictl wants a certificate of its own as well; it is not asked for it here.
        flags = {"ca": certificate, "cert": certificate, "key": key}
        trusting = [f"--tls-{name}={path}" for name, path in flags.items()] + ["-i", container.id, "cat"]
        done = client.run("exec", *trusting, given=b"secret\n" * 100000)
        assert (done.stdout, done.returncode) == (b"secret\n" * 100000, 0), done.stderr
    cri.close()

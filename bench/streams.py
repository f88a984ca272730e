"""Streams as users have them: `crictl exec` and `crictl port-forward`, whole processes, the same for all."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.workload import Pod, PodMaker, Samples
from harness.child import Child
from harness.tools import tool
from phantom_cri.api.cri.v1 import api_pb2 as cri

MIB = 1 << 20
EXEC_BYTES = 256 * MIB
FILE_BYTES = 24 * MIB  # fits into the page cache that the pod's memory limit leaves
DOWNLOADS = 8
POD_PORT = 7000


def measure_streams(maker: PodMaker, endpoint: Path, execs: int, samples: Samples) -> None:
    """One pod: `execs` times `crictl exec true`, bytes out of and into an exec, bytes of a port-forward."""
    crictl = [str(tool("crictl")), f"--config={os.devnull}", f"--runtime-endpoint=unix://{endpoint}"]
    pod = maker.start()
    try:
        for _ in range(execs):
            seconds = _run([*crictl, "exec", pod.container_id, "true"])
            samples.add("crictl exec true", seconds * 1000)
        samples.add_rate("crictl exec, out", EXEC_BYTES / _exec_out(crictl, pod))
        samples.add_rate("crictl exec, in", EXEC_BYTES / _exec_in(crictl, pod))
        samples.add_rate("port-forward", DOWNLOADS * FILE_BYTES / _download(maker, crictl, pod))
    finally:
        maker.remove(pod)


def _exec_out(crictl: list[str], pod: Pod) -> float:
    command = f"dd if=/dev/zero bs=64k count={EXEC_BYTES >> 16} 2>/dev/null"
    return _run([*crictl, "exec", pod.container_id, "sh", "-c", command])


def _exec_in(crictl: list[str], pod: Pod) -> float:
    """The command fails unless every byte has arrived."""
    count = f"test $(wc -c) = {EXEC_BYTES}"
    with tempfile.TemporaryFile() as zeros:
        zeros.truncate(EXEC_BYTES)
        return _run([*crictl, "exec", "-i", pod.container_id, "sh", "-c", count], zeros.fileno())


def _run(command: list[str], stdin: int = subprocess.DEVNULL) -> float:
    """Seconds that the command took; raises CalledProcessError when it fails."""
    begin = time.perf_counter()
    subprocess.run(command, stdin=stdin, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def _download(maker: PodMaker, crictl: list[str], pod: Pod) -> float:
    serve = f"truncate -s {FILE_BYTES} /zeros && httpd -p {POD_PORT} -h /"
    request = cri.ExecSyncRequest(container_id=pod.container_id, cmd=["sh", "-c", serve], timeout=10)
    done = maker.client.runtime("ExecSync", request, cri.ExecSyncResponse)
    if done.exit_code:
        raise RuntimeError(f"{serve}: exit {done.exit_code}: {done.stderr!r}")
    with _forwarded(crictl, pod.sandbox_id, maker.logs) as port:
        begin = time.perf_counter()
        for _ in range(DOWNLOADS):
            _fetch(port)
        return time.perf_counter() - begin


@contextmanager
def _forwarded(crictl: list[str], sandbox_id: str, folder: Path) -> Iterator[int]:
    """The local port that leads to the pod's."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"forward-{sandbox_id}.log"
    child = Child([*crictl, "port-forward", sandbox_id, f":{POD_PORT}"], log)
    try:
        found = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
        child.wait_for(lambda: found.search(child.log_text()), "the port-forward to listen")
        yield int(found.findall(child.log_text())[0])
    finally:
        child.stop()


def _fetch(port: int) -> None:
    """GET of the pod's file until its last byte: how long the peers take to close after it is not measured.

    Raises RuntimeError when the connection ends before.
    """
    buffer, received, wanted = bytearray(MIB), 0, FILE_BYTES
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"GET /zeros HTTP/1.0\r\n\r\n")
        while received < wanted:
            count = client.recv_into(buffer)
            if not count:
                raise RuntimeError(f"port-forward: {received} of {wanted} bytes came through")
            if received == 0:
                wanted += buffer.index(b"\r\n\r\n") + 4
            received += count

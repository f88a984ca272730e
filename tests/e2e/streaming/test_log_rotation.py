"""ReopenContainerLog while a container writes: every line is there once, in order and whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Container, Cri, Pod
from tests.e2e.lifecycle.conftest import PodMaker
from tests.e2e.streaming.client import StreamClient

pytestmark = pytest.mark.root

ROTATIONS = 300
COUNTING = "seq 1 100000000"
"""Lines as fast as they are taken."""

COUNTING_SLOWLY = "n=0; while :; do n=$((n+1)); echo $n; done"


class Rotated:
    """A container's log and all the files that it was moved away to."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.path = Path(container.status.log_path)
        self.files: list[Path] = []

    def rotate(self) -> None:
        """As the kubelet does it: rename, then ask for a new file."""
        moved = self.path.with_name(f"{self.path.name}.{len(self.files)}")
        self.path.rename(moved)
        self.files.append(moved)
        request = pb.ReopenContainerLogRequest(container_id=self.container.id)
        self.container.cri.runtime.ReopenContainerLog(request)
        assert self.path.exists(), "it is there when the call returns"
        assert self.path.stat().st_mode & 0o777 == 0o640

    def lines(self) -> Iterator[bytes]:
        for path in (*self.files, self.path):
            content = path.read_bytes()
            assert content == b"" or content.endswith(b"\n"), f"{path} ends in the middle of a line"
            yield from content.splitlines()

    def check_counted(self, stream: bytes = b"stdout") -> int:
        """The lines count from 1 up without a gap; how far they came."""
        last = 0
        for line in self.lines():
            _, name, tag, text = line.split(b" ", 3)
            if name == stream:
                last += 1
                assert (tag, int(text)) == (b"F", last) or self._is_cut(line, last)
        return last

    @staticmethod
    def _is_cut(line: bytes, number: int) -> bool:
        """Only the very last line may be: the container was killed in the middle of it."""
        return line.split(b" ", 3)[2] == b"P" and str(number).encode().startswith(line.split(b" ", 3)[3])


def test_no_line_is_lost_or_torn(pod: Pod) -> None:
    container = pod.start(COUNTING)
    container.wait_output("100\n")
    rotated = Rotated(container)
    for _ in range(ROTATIONS):
        rotated.rotate()
    container.stop()
    assert rotated.check_counted() > ROTATIONS
    assert sum(path.stat().st_size > 0 for path in rotated.files) > ROTATIONS // 2, "it wrote all the time"


def test_both_streams(pod: Pod) -> None:
    container = pod.start(f"{COUNTING} >&2 & exec {COUNTING}")
    rotated = Rotated(container)
    for _ in range(ROTATIONS // 3):
        rotated.rotate()
    container.stop()
    assert rotated.check_counted(b"stdout") > 0
    assert rotated.check_counted(b"stderr") > 0


def test_a_terminals_log_and_its_clients(spdy: StreamClient, make_pod: PodMaker) -> None:
    container = make_pod().start(f"read x; {COUNTING}", tty=True, stdin=True)
    rotated = Rotated(container)
    with spdy.terminal("attach", container.id) as running:
        running.write(b"go\n")
        running.read_until(b"\n1\r\n")
        for _ in range(ROTATIONS // 3):
            rotated.rotate()
    container.stop()
    first = next(rotated.lines())
    assert first.endswith(b" go"), "what was typed is echoed"
    assert len(list(rotated.lines())) > 100


def test_many_at_the_same_time(pod: Pod) -> None:
    container = pod.start(COUNTING)
    path = Path(container.status.log_path)
    request = pb.ReopenContainerLogRequest(container_id=container.id)
    calls = [container.cri.runtime.ReopenContainerLog.future(request) for _ in range(50)]
    for call in calls:
        call.result()
    container.stop()
    rotated = Rotated(container)
    assert rotated.path == path
    assert rotated.check_counted() > 0


def test_across_daemons(make_daemon: DaemonMaker, busybox_image: str, tmp_path: Path) -> None:
    daemon = make_daemon({"pools": []}).start()
    cri = Cri(daemon.endpoint)
    cri.pull(busybox_image)
    container = cri.pod(tmp_path).run_sandbox().start(COUNTING_SLOWLY)
    rotated = Rotated(container)
    for end in (daemon.stop, daemon.kill):
        for _ in range(20):
            rotated.rotate()
        end()
        moved = rotated.path.with_name(f"{rotated.path.name}.{len(rotated.files)}")
        rotated.path.rename(moved)  # the kubelet was half through when the daemon went
        rotated.files.append(moved)
        daemon.start()
        cri.wait_served()
        cri.runtime.ReopenContainerLog(pb.ReopenContainerLogRequest(container_id=container.id))
    for _ in range(20):
        rotated.rotate()
    container.stop()
    assert rotated.check_counted() > 1000
    cri.close()

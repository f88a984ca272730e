"""Full disks below images, checkpoints and logs: it is told which, what runs goes on, and all works later.

The state folder, inodes and the places in between are in tests/e2e/faults/test_exhaustion.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from harness.daemon import Daemon
from harness.image import build_image
from harness.registry import Registry
from harness.tools import tool
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.conftest import DaemonMaker
from tests.e2e.faults.test_exhaustion import filled, small
from tests.e2e.lifecycle.client import Container, Cri, Pod, refusal

pytestmark = pytest.mark.root

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
MIB = 1 << 20


@pytest.fixture
def daemon(make_daemon: DaemonMaker) -> Iterator[Daemon]:
    """Its images lie on a disk of 64 MiB."""
    made = make_daemon({"pools": [], "checkpoint": {"criu": str(tool("criu"))}})
    with small(made.root, "size=64m"):
        yield made.start()
        assert "Traceback" not in made.log_text()
        assert made.stop() == 0


@pytest.fixture
def cri(daemon: Daemon, busybox_image: str) -> Iterator[Cri]:
    client = Cri(daemon.endpoint)
    client.pull(busybox_image)
    yield client
    client.remove_pods()
    client.close()


@pytest.fixture
def pod(cri: Cri, tmp_path: Path) -> Pod:
    return cri.pod(tmp_path / "logs").run_sandbox()


@pytest.fixture(scope="module")
def big_image(registry: Registry, short_folder: Path) -> str:
    """16 MiB that cannot be compressed."""
    build_image(short_folder / "big", files={"/big": os.urandom(16 * MIB)})
    return registry.push(short_folder / "big", "big")


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A disk with a page left on it."""
    with small(tmp_path / "disk", "size=1m"), filled(tmp_path / "disk", pages=1):
        yield tmp_path / "disk"


def check_told(call: Callable[[], object], what: str) -> None:
    code, text = refusal(call)
    assert code is EXHAUSTED, text
    assert what in text
    assert "No space left on device" in text


def check_goes_on(container: Container) -> None:
    assert container.exec("echo", "on").stdout == b"on\n"


@pytest.mark.parametrize("pages", [0, 100, 2000, 6000])
def test_a_pull(daemon: Daemon, cri: Cri, pod: Pod, big_image: str, pages: int) -> None:
    """Full at once, while a layer comes, and while it is unpacked."""
    running = pod.start("sleep 1000")
    request = pb.PullImageRequest(image=pb.ImageSpec(image=big_image))
    used = os.statvfs(daemon.root).f_bfree
    with filled(daemon.root, pages=pages):
        check_told(lambda: cri.images.PullImage(request), "no space for images")
        check_goes_on(running)
        assert len(cri.images.ListImages(pb.ListImagesRequest()).images) == 1
    wait_until(lambda: os.statvfs(daemon.root).f_bfree >= used - 16, "what came of it to be deleted")
    cri.images.PullImage(request)


def test_writing_containers(daemon: Daemon, cri: Cri, pod: Pod) -> None:
    """A container that fills its own layer is told so by the kernel, and others are not ended by it."""
    running = pod.start("sleep 1000")
    greedy = pod.run("cat /dev/zero >/fill; echo full; exit 3")
    assert greedy.status.exit_code == 3
    assert "No space left on device" in greedy.output
    check_goes_on(running)
    greedy.remove()
    wait_until(lambda: os.statvfs(daemon.root).f_bavail > 1000, "its layer to be deleted")
    check_goes_on(pod.start("sleep 1000"))


def test_a_checkpoint(pod: Pod, full: Path) -> None:
    running = pod.start("sleep 1000")
    location = full / "checkpoint.tar"
    request = pb.CheckpointContainerRequest(container_id=running.id, location=str(location))
    check_told(lambda: pod.cri.runtime.CheckpointContainer(request), f"location: write {location}")
    assert os.listdir(full) == ["filler"]
    check_goes_on(running)


def test_the_images_of_a_checkpoint(daemon: Daemon, pod: Pod, tmp_path: Path) -> None:
    """CRIU itself runs out of space, below the daemon's root."""
    running = pod.start("sleep 1000")
    location = str(tmp_path / "checkpoint.tar")
    request = pb.CheckpointContainerRequest(container_id=running.id, location=location)
    with filled(daemon.root, pages=20):
        code, text = refusal(lambda: pod.cri.runtime.CheckpointContainer(request))
        assert (code, "space" in text) == (EXHAUSTED, True), text
        check_goes_on(running)
    assert os.listdir(daemon.root / "checkpoints") == []
    pod.cri.runtime.CheckpointContainer(request)
    check_goes_on(running)


def test_logs(cri: Cri, full: Path) -> None:
    """A container that talks is not held up by a log that cannot be written, and its pod can be made."""
    pod = cri.pod(full)
    pod.config.log_directory = str(full)
    talker = pod.run_sandbox().start("i=0; while :; do echo $((i=i+1)); done")
    assert talker.exec("sleep 0.3; echo on").stdout == b"on\n"
    cpu = int(talker.tell("cut -d' ' -f14 /proc/1/stat"))
    wait_until(lambda: int(talker.tell("cut -d' ' -f14 /proc/1/stat")) > cpu + 5, "the talker to go on")
    cri.runtime.ReopenContainerLog(pb.ReopenContainerLogRequest(container_id=talker.id))
    talker.stop()
    assert talker.wait_exited().exit_code == 137
    pod.remove()

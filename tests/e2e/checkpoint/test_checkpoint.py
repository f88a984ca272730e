"""CheckpointContainer with a real CRIU: what the archive holds, and that the container never notices."""

from __future__ import annotations

import json
import os
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness.daemon import Daemon
from harness.tools import tool
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Container, Cri, Pod, linux, refusal
from tests.e2e.lifecycle.conftest import settled, warmed_up

pytestmark = pytest.mark.root

COUNT = "rm /bin/vi; i=0; while :; do i=$((i+1)); echo $i; echo $i >/count; sleep 0.05; done"
SYS_RESOURCE = 24  # linux/capability.h
MUCH_MEMORY = "a=x; for i in $(seq 29); do a=$a$a; done; echo ready; sleep 3600"
"""512 MiB of shell: a dump takes long enough to be disturbed."""


@pytest.fixture(scope="module")
def daemon(busybox_image: str) -> Iterator[Daemon]:
    config = {"pools": [{"name": "default", "size": 2}], "checkpoint": {"criu": str(tool("criu"))}}
    with Daemon(Path(tempfile.mkdtemp(prefix="pf-")), config) as running:
        yield running


@pytest.fixture(scope="module")
def cri(daemon: Daemon, busybox_image: str) -> Iterator[Cri]:
    """Afterwards the daemon has what it had before."""
    client = Cri(daemon.endpoint)
    client.pull(busybox_image)
    before = warmed_up(daemon, client)
    yield client
    client.remove_pods()
    settled(daemon, client)
    daemon.wait_for_no_traces(before)
    assert os.listdir(daemon.root / "checkpoints") == []
    client.close()


@pytest.fixture
def pod(cri: Cri, tmp_path: Path) -> Iterator[Pod]:
    made = cri.pod(tmp_path).run_sandbox()
    yield made
    made.remove()


def checkpoint(container: Container, location: Path | str, timeout: int = 0) -> None:
    request = pb.CheckpointContainerRequest(
        container_id=container.id, location=str(location), timeout=timeout
    )
    container.cri.runtime.CheckpointContainer(request)


def counted(container: Container) -> int:
    return int((container.output.splitlines() or ["0"])[-1])


def check_goes_on(container: Container) -> None:
    now = counted(container)
    wait_until(lambda: counted(container) > now + 2, "the count to go on")


@pytest.mark.parametrize(
    "fields",
    [
        {"linux": linux()},
        {"linux": linux(namespace_options=pb.NamespaceOption(pid=pb.POD))},
        {"tty": True, "stdin": True},
    ],
    ids=["own pid namespace", "the pod's pid namespace", "terminal"],
)
def test_a_checkpoint_holds_memory_files_and_log(pod: Pod, tmp_path: Path, fields: dict[str, Any]) -> None:
    container = pod.start(COUNT, **fields)
    container.wait_output("5")
    location = tmp_path / "checkpoint.tar"
    checkpoint(container, location)
    check_goes_on(container)
    assert container.exec("true").exit_code == 0

    assert location.stat().st_mode & 0o777 == 0o600
    with tarfile.open(location) as archive:
        names = set(archive.getnames())
        config, spec = (json.loads(content(archive, name)) for name in ("config.dump", "spec.dump"))
        with tarfile.open(fileobj=archive.extractfile("rootfs-diff.tar")) as diff:
            changed = set(diff.getnames())
    assert {"dump.log", "stats-dump", "container.log"} <= names
    assert {"checkpoint/inventory.img", "checkpoint/pages-1.img"} <= names
    assert {"count", "bin/.wh.vi"} <= changed
    assert (config["id"], config["rootfsImage"]) == (container.id, pod.cri.image)
    assert spec["process"]["args"] == ["sh", "-c", COUNT]
    assert spec["annotations"]["io.kubernetes.cri.sandbox-id"] == pod.id
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


def content(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def test_what_criu_cannot_dump_is_told_in_its_words(pod: Pod, tmp_path: Path) -> None:
    """A program of another user has limits that only CAP_SYS_RESOURCE may read (prlimit(2))."""
    container = pod.start("sleep 3600", linux=linux(run_as_user=pb.Int64Value(value=1000)))
    if has_capability(SYS_RESOURCE):
        checkpoint(container, tmp_path / "x")
    else:
        code, text = refusal(lambda: checkpoint(container, tmp_path / "x"))
        assert code == grpc.StatusCode.FAILED_PRECONDITION
        assert "Can't get rlimit" in text
        assert not (tmp_path / "x").exists()
    assert container.status.state == pb.CONTAINER_RUNNING


def has_capability(number: int) -> bool:
    status = Path("/proc/self/status").read_text()
    return bool(int(status.partition("CapEff:")[2].split()[0], 16) >> number & 1)


def test_execs_go_on_as_well(pod: Pod, tmp_path: Path) -> None:
    container = pod.start(COUNT)
    container.wait_output("2")
    said: list[pb.ExecSyncResponse] = []
    running = threading.Thread(target=lambda: said.append(container.exec("sleep 2; echo done")))
    running.start()
    checkpoint(container, tmp_path / "checkpoint.tar")
    running.join()
    assert said[0].stdout == b"done\n"


@pytest.mark.parametrize(
    "location", ["", "checkpoint.tar", "/", "/nowhere/checkpoint.tar", "/tmp", "/tmp/x\0y"]
)
def test_a_bad_location_is_named(pod: Pod, location: str) -> None:
    container = pod.start(COUNT)
    code, text = refusal(lambda: checkpoint(container, location))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert text.startswith("location: ")
    check_goes_on(container)


def test_only_what_runs_can_be_checkpointed(pod: Pod, cri: Cri, tmp_path: Path) -> None:
    ended = pod.run("true")
    code, text = refusal(lambda: checkpoint(ended, tmp_path / "x"))
    assert (code, "exited" in text) == (grpc.StatusCode.FAILED_PRECONDITION, True)
    code, _ = refusal(lambda: checkpoint(Container(cri, "f" * 64), tmp_path / "x"))
    assert code == grpc.StatusCode.NOT_FOUND


def in_background(call: Callable[[], object]) -> tuple[threading.Thread, list[BaseException | None]]:
    ends: list[BaseException | None] = []

    def run() -> None:
        try:
            call()
            ends.append(None)
        except grpc.RpcError as error:
            ends.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, ends


def frozen(daemon: Daemon, container: Container) -> bool:
    cgroup = json.loads(container.details)["cgroup"]
    for file, word in (("freezer/{}/freezer.state", "FROZEN"), ("{}/cgroup.freeze", "1")):
        path = Path("/sys/fs/cgroup") / file.format(cgroup.strip("/"))
        if path.exists() and path.read_text().strip() == word:
            return True
    return False


def disturbed(daemon: Daemon, pod: Pod, location: Path) -> tuple[Container, threading.Thread, list[Any]]:
    """A container in the middle of its checkpoint."""
    container = pod.start(MUCH_MEMORY)
    container.wait_output("ready")
    thread, ends = in_background(lambda: checkpoint(container, location))
    wait_until(lambda: frozen(daemon, container), "the container to stand still")
    return container, thread, ends


def test_a_stop_does_not_wait_for_a_checkpoint(daemon: Daemon, pod: Pod, tmp_path: Path) -> None:
    container, thread, ends = disturbed(daemon, pod, tmp_path / "x")
    container.stop(0)
    assert container.status.state == pb.CONTAINER_EXITED
    thread.join()
    assert ends[0] is not None
    assert ends[0].code() == grpc.StatusCode.FAILED_PRECONDITION
    assert not (tmp_path / "x").exists()


def test_a_pod_can_be_removed_during_a_checkpoint(daemon: Daemon, cri: Cri, tmp_path: Path) -> None:
    pod = cri.pod(tmp_path).run_sandbox()
    _, thread, ends = disturbed(daemon, pod, tmp_path / "x")
    pod.remove()
    thread.join()
    assert ends[0] is not None


def test_a_client_that_leaves_does_no_harm(daemon: Daemon, pod: Pod, tmp_path: Path) -> None:
    container = pod.start(MUCH_MEMORY)
    container.wait_output("ready")
    request = pb.CheckpointContainerRequest(container_id=container.id, location=str(tmp_path / "x"))
    call = container.cri.runtime.CheckpointContainer.future(request)
    wait_until(lambda: frozen(daemon, container), "the container to stand still")
    call.cancel()
    wait_until(lambda: not frozen(daemon, container), "the container to go on")
    assert container.exec("true").exit_code == 0
    assert container.status.state == pb.CONTAINER_RUNNING
    assert not (tmp_path / "x").exists()


def test_a_daemon_that_dies_leaves_nobody_frozen(
    make_daemon: DaemonMaker, busybox_image: str, tmp_path: Path
) -> None:
    daemon = make_daemon({"checkpoint": {"criu": str(tool("criu"))}}).start()
    cri = Cri(daemon.endpoint)
    cri.pull(busybox_image)
    pod = cri.pod(tmp_path).run_sandbox()
    container, thread, _ = disturbed(daemon, pod, tmp_path / "x")
    daemon.kill()
    thread.join()
    daemon.restart()
    cri.wait_served()
    assert not frozen(daemon, container)
    assert os.listdir(daemon.root / "checkpoints") == []
    pod.remove()
    cri.close()


def test_without_criu_the_reason_is_told(
    make_daemon: DaemonMaker, busybox_image: str, tmp_path: Path
) -> None:
    daemon = make_daemon({"checkpoint": {"criu": "/nowhere/criu"}}).start()
    cri = Cri(daemon.endpoint)
    cri.pull(busybox_image)
    container = cri.pod(tmp_path).run_sandbox().start(COUNT)
    code, text = refusal(lambda: checkpoint(container, tmp_path / "x"))
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert "/nowhere/criu: No such file or directory" in text
    check_goes_on(container)
    cri.close()

"""The node runs out of something for real: the client is told, nothing is left, and later it works again."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from harness.cgroups import MOUNT
from harness.daemon import Daemon
from harness.host import open_files
from harness.waiting import wait_until
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Container, Cri, Pod

pytestmark = pytest.mark.root

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
COLD = {"pools": [{"name": "default", "size": 0}]}
PAGE = 4096


@pytest.fixture
def connect(busybox_image: str) -> Iterator[Callable[[Daemon], Cri]]:
    """A client of a started daemon that has pulled the image and run a pod once."""
    clients: list[Cri] = []
    daemons: list[Daemon] = []

    def make(daemon: Daemon) -> Cri:
        client = Cri(daemon.endpoint)
        clients.append(client)
        daemons.append(daemon)
        client.pull(busybox_image)
        whole_pod(client, daemon)
        wait_until(lambda: not daemon.snapshot().counts["links on the bridge"], "the first pod's link to go")
        return client

    yield make
    for client in clients:
        client.close()
    for daemon in daemons:
        shutil.rmtree(logs(daemon))


def logs(daemon: Daemon) -> Path:
    """Not below the daemon's folder: log files belong to who asks for them, and stay."""
    return daemon.folder.with_name(f"{daemon.folder.name}-logs")


def whole_pod(cri: Cri, daemon: Daemon) -> None:
    """A pod with a container and an exec, from its beginning to its end; it is removed whatever fails."""
    pod = cri.pod(logs(daemon))
    try:
        pod.run_sandbox()
        assert pod.start("sleep 1000").exec("echo", "here").stdout == b"here\n"
    finally:
        if pod.id:
            pod.remove()


def refusals(cri: Cri, daemon: Daemon) -> list[str]:
    """What a whole pod fails with; only that something ran out may be the reason."""
    try:
        whole_pod(cri, daemon)
    except grpc.RpcError as error:
        assert error.code() is EXHAUSTED, (error.code(), error.details())
        return [error.details() or ""]
    return []


def test_addresses(make_daemon: DaemonMaker, connect: Callable[[Daemon], Cri]) -> None:
    daemon = make_daemon(COLD)
    prefix = daemon.config["network"]["subnets"][0].rpartition(".")[0]
    daemon.config["network"]["subnets"] = [f"{prefix}.0/29"]
    cri = connect(daemon.start())
    before = daemon.snapshot()
    pods = [cri.pod(logs(daemon)).run_sandbox() for _ in range(5)]
    assert len({pod.ip for pod in pods}) == 5
    full = daemon.snapshot()
    for _ in range(3):
        (text,) = refusals(cri, daemon)
        assert f"all 5 addresses of {prefix}.0/29" in text
    daemon.wait_for_no_traces(full)
    gone = pods.pop()
    ip = gone.ip
    gone.remove()
    pods.append(cri.pod(logs(daemon)).run_sandbox())
    assert pods[-1].ip == ip
    for pod in pods:
        pod.remove()
    daemon.wait_for_no_traces(before)


def test_file_descriptors(make_daemon: DaemonMaker, connect: Callable[[Daemon], Cri]) -> None:
    """With 0, 1, 2 … of them left: each place that opens one is the first to get none, some time."""
    daemon = make_daemon(COLD).start()
    cri = connect(daemon)
    before, pid = daemon.snapshot(), daemon.running.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    texts = []
    for spare in itertools.count():
        last = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
        holes = last + 1 - len(list(open_files(pid)))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (last + 1 + spare, limits[1]))
        try:
            found = refusals(cri, daemon)
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        daemon.wait_for_no_traces(before)
        texts += found
        if not found and spare > holes:
            break
        assert spare < 100, "it never worked again"
    assert len(set(texts)) > 3, texts
    assert all("EMFILE" in text or "Too many open files" in text for text in texts), texts
    whole_pod(cri, daemon)


@pytest.fixture
def pids_cgroup() -> Iterator[Path]:
    """A cgroup of the test's own with the pids controller: v1's, or v2's."""
    folder = (MOUNT / "pids" if (MOUNT / "pids").is_dir() else MOUNT) / f"phantom-pids-{os.getpid()}"
    folder.mkdir()
    yield folder
    wait_until(lambda: not (folder / "cgroup.procs").read_text(), "the daemon to leave its cgroup")
    folder.rmdir()


def test_processes_of_the_daemon(
    make_daemon: DaemonMaker, connect: Callable[[Daemon], Cri], pids_cgroup: Path
) -> None:
    """No process can be cloned from it, and no thread be started."""
    daemon = make_daemon(COLD).start()
    cri = connect(daemon)
    before = daemon.snapshot()
    home = own_cgroup(daemon.running.pid, pids_cgroup.parent)
    (pids_cgroup / "cgroup.procs").write_text(str(daemon.running.pid))
    (pids_cgroup / "pids.max").write_text((pids_cgroup / "pids.current").read_text())
    for _ in range(3):
        (text,) = refusals(cri, daemon)
        assert "EAGAIN" in text
    (pids_cgroup / "pids.max").write_text("max")
    whole_pod(cri, daemon)
    (home / "cgroup.procs").write_text(str(daemon.running.pid))
    daemon.wait_for_no_traces(before)


def own_cgroup(pid: int, hierarchy: Path) -> Path:
    """Where `pid` is in `hierarchy`; cgroups(7), /proc/PID/cgroup."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == hierarchy.name or (hierarchy == MOUNT and not controllers):
            return hierarchy / path.strip("/")
    raise AssertionError(f"{pid} is nowhere in {hierarchy}")


def test_processes_of_a_fragment(make_daemon: DaemonMaker, connect: Callable[[Daemon], Cri]) -> None:
    """The fragments' own cgroup has a limit that is reached: what runs goes on, no start succeeds."""
    daemon = make_daemon(COLD).start()
    cri = connect(daemon)
    before = daemon.snapshot()
    hierarchy = MOUNT / "pids" if (MOUNT / "pids").is_dir() else MOUNT
    limit = hierarchy / daemon.cgroup.strip("/") / "fragments" / "pids.max"
    pod = cri.pod(logs(daemon)).run_sandbox()
    running = pod.start("sleep 1000")
    limit.write_text((limit.parent / "pids.current").read_text())
    refused = pod.create("sleep 1000")
    with pytest.raises(grpc.RpcError) as error:
        refused.start()
    assert (error.value.code(), "EAGAIN" in str(error.value.details())) == (EXHAUSTED, True), error.value
    assert refused.status.reason == "StartError"
    limit.write_text("max")
    refused.remove()
    assert running.exec("echo", "on").stdout == b"on\n"
    assert pod.start("sleep 1000").exec("true").exit_code == 0
    pod.remove()
    daemon.wait_for_no_traces(before)


@contextlib.contextmanager
def small(folder: Path, options: str) -> Iterator[None]:
    """A tmpfs of its own at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def filled(folder: Path, *, pages: int) -> Iterator[None]:
    """All but `pages` of the file system at `folder` are taken."""
    filler = folder / "filler"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(free - pages * PAGE, PAGE))
    try:
        yield
    finally:
        filler.unlink()


def test_a_full_state_directory(make_daemon: DaemonMaker, connect: Callable[[Daemon], Cri]) -> None:
    """With 0, 1, 2 … pages left; meanwhile what runs goes on and ends as it should."""
    daemon = make_daemon(COLD)
    with small(daemon.state, "size=2m"):
        cri = connect(daemon.start())
        before = daemon.snapshot()
        pod = cri.pod(logs(daemon)).run_sandbox()
        running = pod.start("sleep 1000")
        full = daemon.snapshot()
        texts = []
        for pages in range(0, 40):
            with filled(daemon.state, pages=pages):
                found = refusals(cri, daemon)
            daemon.wait_for_no_traces(full)
            texts += found
            if not found:
                break
        assert len(set(texts)) > 3, texts
        with filled(daemon.state, pages=0):
            end_on_a_full_disk(pod, running)
        pod.remove()
        whole_pod(cri, daemon)
        daemon.wait_for_no_traces(before)
        assert daemon.stop() == 0


def end_on_a_full_disk(pod: Pod, running: Container) -> None:
    assert running.exec("echo", "on").stdout == b"on\n"
    running.stop()
    assert running.wait_exited().exit_code == 137
    pod.stop()


def test_a_full_root_directory(make_daemon: DaemonMaker, connect: Callable[[Daemon], Cri]) -> None:
    """No inode is left for another container; those that run are not bothered, and removal makes room."""
    daemon = make_daemon(COLD)
    with small(daemon.root, "size=64m,nr_inodes=1000"):
        cri = connect(daemon.start())
        pod = cri.pod(logs(daemon)).run_sandbox()
        made = []
        with pytest.raises(grpc.RpcError) as error:
            for _ in range(1000):
                made.append(pod.start("sleep 1000"))
        assert error.value.code() is EXHAUSTED, error.value.details()
        assert "No space left" in str(error.value.details())
        assert made[0].exec("echo", "on").stdout == b"on\n"
        for container in made[-40:]:
            container.remove()
        wait_until(lambda: os.statvfs(daemon.root).f_favail > 50, "the rubbish to be deleted")
        assert pod.start("sleep 1000").exec("true").exit_code == 0
        pod.remove()
        assert daemon.stop() == 0

"""Mounts that a request asks for: what the container sees, what the node sees, what is refused."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness.host import mounts_below, unmount_below
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Cri, Pod, linux, refusal

pytestmark = pytest.mark.root

RSLAVE, RSHARED = pb.PROPAGATION_HOST_TO_CONTAINER, pb.PROPAGATION_BIDIRECTIONAL


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A shared mount of its own with a file, and a tmpfs mounted below."""
    folder = tmp_path / "volume"
    folder.mkdir()
    mount("--bind", folder, folder)
    mount("--make-shared", folder)
    (folder / "file").write_text("content\n")
    (folder / "below").mkdir()
    mount("-t", "tmpfs", "tmpfs", folder / "below")
    yield folder
    unmount_below(tmp_path)


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def at_data(source: Path, **fields: Any) -> list[pb.Mount]:
    return [pb.Mount(container_path="/data", host_path=str(source), **fields)]


def test_a_folder_both_sides_write_to(pod: Pod, volume: Path) -> None:
    container = pod.start("sleep 100", mounts=at_data(volume))
    assert container.tell("cat /data/file") == "content"
    container.tell("echo from inside > /data/new; echo x > /data/below/x")
    assert (volume / "new").read_text() == "from inside\n"
    assert (volume / "below" / "x").exists(), "binds take along what is mounted below"


def test_read_only_is_not_for_what_is_below(pod: Pod, volume: Path) -> None:
    container = pod.start("sleep 100", mounts=at_data(volume, readonly=True))
    assert container.exec("touch /data/x").exit_code != 0
    assert container.exec("touch /data/below/x").exit_code == 0


def test_recursive_read_only_is(pod: Pod, volume: Path) -> None:
    container = pod.start("sleep 100", mounts=at_data(volume, readonly=True, recursive_read_only=True))
    assert container.exec("touch /data/x").exit_code != 0
    assert container.exec("touch /data/below/x").exit_code != 0


@pytest.mark.parametrize("fields", [{"readonly": False}, {"readonly": True, "propagation": RSLAVE}])
def test_recursive_read_only_has_its_conditions(pod: Pod, volume: Path, fields: dict[str, Any]) -> None:
    mounts = at_data(volume, recursive_read_only=True, **fields)
    code, text = refusal(lambda: pod.create("true", mounts=mounts))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "recursive_read_only" in text


@pytest.mark.parametrize(
    ("propagation", "seen"), [(pb.PROPAGATION_PRIVATE, ""), (RSLAVE, "late"), (RSHARED, "late")]
)
def test_a_later_mount_of_the_node(pod: Pod, volume: Path, propagation: int, seen: str) -> None:
    (volume / "late").mkdir()
    container = pod.start("sleep 100", mounts=at_data(volume, propagation=propagation))
    mount("-t", "tmpfs", "tmpfs", volume / "late")
    (volume / "late" / "late").touch()
    assert container.tell("ls /data/late") == seen


def test_a_mount_of_a_privileged_container_reaches_the_node(cri: Cri, tmp_path: Path, volume: Path) -> None:
    context = pb.LinuxSandboxSecurityContext(privileged=True)
    pod = cri.pod(tmp_path, linux=pb.LinuxPodSandboxConfig(security_context=context)).run_sandbox()
    (volume / "inner").mkdir()
    container = pod.start(
        "sleep 100", mounts=at_data(volume, propagation=RSHARED), linux=linux(privileged=True)
    )
    container.tell("mount -t tmpfs tmpfs /data/inner && touch /data/inner/seen")
    assert (volume / "inner" / "seen").exists()
    pod.remove()


def test_bidirectional_needs_a_shared_mount(pod: Pod, volume: Path) -> None:
    mount("--make-private", volume)
    _, text = refusal(lambda: pod.start("true", mounts=at_data(volume, propagation=RSHARED)))
    assert str(volume) in text


def test_a_file_and_a_link(pod: Pod, volume: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(volume)
    mounts = [
        pb.Mount(container_path="/etc/passwd", host_path=str(volume / "file")),
        pb.Mount(container_path="/made/on/the/way", host_path=str(tmp_path / "link")),
    ]
    container = pod.start("sleep 100", mounts=mounts)
    assert container.tell("cat /etc/passwd /made/on/the/way/file") == "content\ncontent"


def test_a_host_path_that_is_missing_is_made_as_a_folder(pod: Pod, tmp_path: Path) -> None:
    missing = tmp_path / "not" / "there"
    pod.start("sleep 100", mounts=at_data(missing)).tell("touch /data/x")
    assert (missing / "x").exists()


def test_a_parent_comes_first_whatever_the_order(pod: Pod, volume: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "deep").touch()
    mounts = [pb.Mount(container_path="/data/inner", host_path=str(inner)), *at_data(volume)]
    container = pod.start("sleep 100", mounts=mounts)
    assert container.tell("ls /data/inner; ls /data").split() == ["deep", "below", "file", "inner"]


@pytest.mark.parametrize("place", ["/", "/data/..", "/proc/self/root/data", "/x/../proc/self"])
def test_places_that_no_mount_may_cover(pod: Pod, volume: Path, place: str) -> None:
    mounts = [pb.Mount(container_path=place, host_path=str(volume))]
    code, text = refusal(lambda: pod.create("true", mounts=mounts))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "mounts[0].container_path" in text


@pytest.mark.parametrize(
    ("place", "seen"),
    [
        ("//data//x/", "/data/x"),
        ("/data/../etc2", "/etc2"),
        ("/../../up", "/up"),
        ("/dev/../etc3", "/etc3"),
        ("relative/x", "/relative/x"),
    ],
)
def test_the_place_of_a_mount_is_cleaned_as_by_runc(pod: Pod, volume: Path, place: str, seen: str) -> None:
    mounts = [pb.Mount(container_path=place, host_path=str(volume))]
    container = pod.run(f"cat {seen}/file", mounts=mounts)
    assert container.output == "content"
    assert container.status.mounts[0].container_path == place


def test_dots_in_a_host_path_are_the_kernels(pod: Pod, volume: Path) -> None:
    """`link/..` is the folder above what the link leads to, not the one that holds the link."""
    (volume / "deep" / "er").mkdir(parents=True)
    (volume / "deep" / "file").write_text("deep\n")
    (volume / "link").symlink_to("deep/er")
    for source, content in ((volume / "link" / "..", "deep"), (volume / "deep" / "..", "content")):
        assert pod.run("cat /data/file", mounts=at_data(source)).output == content


def test_shm_is_the_pods_and_ends_with_it(pod: Pod) -> None:
    writer, reader = pod.start("sleep 100"), pod.start("sleep 100")
    writer.tell("echo here > /dev/shm/mark")
    assert reader.tell("cat /dev/shm/mark") == "here"
    assert " /dev/shm tmpfs rw,nosuid,nodev,noexec" in reader.tell("cat /proc/mounts")
    writer.remove()
    assert reader.tell("cat /dev/shm/mark") == "here"


def test_a_mount_on_shm_replaces_the_pods(pod: Pod, volume: Path) -> None:
    mounts = [pb.Mount(container_path="/dev/shm", host_path=str(volume))]
    assert pod.run("cat /dev/shm/file", mounts=mounts).output == "content"


def test_status_tells_the_mounts_that_were_asked_for_also_afterwards(pod: Pod, volume: Path) -> None:
    mounts = at_data(volume, readonly=True, propagation=RSLAVE)
    container = pod.run("true", mounts=mounts)
    assert list(container.status.mounts) == mounts


def test_the_node_has_no_mount_of_a_container(cri: Cri, pod: Pod, node: Any, volume: Path) -> None:
    before = len(Path("/proc/self/mountinfo").read_text().splitlines())
    container = pod.start("sleep 100", mounts=at_data(volume))
    assert mounts_below(node.folder) == []
    assert len(Path("/proc/self/mountinfo").read_text().splitlines()) == before
    container.remove()
    wait_until(lambda: subprocess.run(["umount", volume / "below"]).returncode == 0, "the volume to be free")


def test_the_root_is_the_containers_own(pod: Pod) -> None:
    one, two = pod.start("sleep 100"), pod.start("sleep 100")
    one.tell("echo changed > /etc/passwd; rm /bin/vi; mkdir /new")
    assert "root:x:0" in two.tell("cat /etc/passwd")
    assert two.exec("test -e /bin/vi && test ! -e /new").exit_code == 0

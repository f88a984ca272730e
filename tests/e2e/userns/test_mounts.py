"""Volumes of a pod with a user namespace: mapped ones, plain ones, and those that cannot be."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from harness.image import LayerBuilder, write_layout
from harness.registry import Registry
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Container, Cri, Pod, refusal
from tests.e2e.userns.conftest import COUNT, FIRST, id_mapping, inside, mapped_mount, owner

pytestmark = [pytest.mark.root, pytest.mark.kernel("user_namespaces")]

INVALID = grpc.StatusCode.INVALID_ARGUMENT
Mounted = Callable[..., Container]


@pytest.fixture
def mounted(user_pod: Pod) -> Mounted:
    return lambda *mounts: user_pod.start("sleep 1000", linux=inside(), mounts=mounts)


@pytest.fixture
def host_folder(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs on the host, from which mounts propagate."""
    folder = tmp_path / "folder"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)
    subprocess.run(["mount", "--make-shared", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-R", "-l", str(folder)], check=True)


def test_a_mapped_volume(mounted: Mounted, tmp_path: Path) -> None:
    """On disk its ids are those that the pod sees: so it can go to another pod, with other ids."""
    (tmp_path / "of-root").write_text("of root\n")
    (tmp_path / "of-root").chmod(0o600)
    container = mounted(mapped_mount(tmp_path, "/data"))
    assert container.tell("cat /data/of-root; stat -c %u:%g /data").split("\n") == ["of root", "0:0"]
    container.tell("touch /data/mine; mkdir /data/theirs; chown 1000:2000 /data/theirs")
    assert owner(tmp_path / "mine") == (0, 0) and owner(tmp_path / "theirs") == (1000, 2000)


def test_ids_beyond_the_pods(mounted: Mounted, tmp_path: Path) -> None:
    (tmp_path / "far").write_text("")
    subprocess.run(["chown", f"{COUNT}:{FIRST}", str(tmp_path / "far")], check=True)
    container = mounted(mapped_mount(tmp_path, "/data"))
    assert container.tell("stat -c %u:%g /data/far") == "65534:65534"
    for change in ("echo x > /data/far", "chown 0 /data/far", "chmod 777 /data/far"):
        assert container.exec(change).exit_code != 0


def test_a_plain_volume(mounted: Mounted, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "of-root").write_text("")
    container = mounted(pb.Mount(host_path=str(tmp_path), container_path="/data"))
    assert container.tell("stat -c %u:%g /data/of-root") == "65534:65534"
    container.tell("touch /data/mine")
    assert owner(tmp_path / "mine") == (FIRST, FIRST)


def test_a_single_file(mounted: Mounted, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("before\n")
    file.chmod(0o600)
    container = mounted(mapped_mount(file, "/etc/config"))
    assert container.tell("cat /etc/config; echo after > /etc/config") == "before"
    assert file.read_text() == "after\n"


def test_a_missing_host_path_is_made(mounted: Mounted, tmp_path: Path) -> None:
    container = mounted(mapped_mount(tmp_path / "new/folder", "/data"))
    container.tell("touch /data/x")
    assert owner(tmp_path / "new/folder/x") == (0, 0)


def test_mounts_below_are_mapped_too(mounted: Mounted, host_folder: Path) -> None:
    inner = host_folder / "inner"
    inner.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(inner)], check=True)
    container = mounted(mapped_mount(host_folder, "/data"))
    assert (
        container.tell("touch /data/inner/x; stat -c %u /data /data/inner /data/inner/x").split() == ["0"] * 3
    )
    assert owner(inner / "x") == (0, 0)


def test_a_mount_below_that_cannot_is_nobodys(mounted: Mounted, host_folder: Path) -> None:
    inner = host_folder / "proc"
    inner.mkdir()
    subprocess.run(["mount", "-t", "proc", "proc", str(inner)], check=True)
    container = mounted(mapped_mount(host_folder, "/data"))
    assert container.tell("touch /data/x; stat -c %u /data /data/proc/sys").split() == ["0", "65534"]


@pytest.mark.parametrize("source", ["/proc/sys", "/sys/kernel"])
def test_a_file_system_that_cannot_is_named(user_pod: Pod, source: str) -> None:
    container = user_pod.create("true", linux=inside(), mounts=[mapped_mount(source, "/data")])
    code, text = refusal(container.start)
    assert code is grpc.StatusCode.INTERNAL
    assert f"map the ids of bind {source}: EINVAL" in text and "cannot map ids" in text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gidMappings": []}, "mounts[0].uidMappings, gidMappings"),
        ({"uidMappings": [id_mapping(5)]}, "mounts[0].uidMappings, gidMappings"),
        ({"uidMappings": [id_mapping()] * 2}, "mounts[0].uidMappings, gidMappings"),
        ({"propagation": pb.PROPAGATION_BIDIRECTIONAL}, "mounts[0].propagation"),
    ],
)
def test_impossible_mounts(user_pod: Pod, tmp_path: Path, fields: dict[str, object], words: str) -> None:
    mount = mapped_mount(tmp_path, "/data", **fields)
    code, text = refusal(lambda: user_pod.create("true", linux=inside(), mounts=[mount]))
    assert code is INVALID and words in text


def test_a_pod_without_user_namespace_maps_nothing(pod: Pod, tmp_path: Path) -> None:
    code, text = refusal(lambda: pod.create("true", mounts=[mapped_mount(tmp_path, "/data")]))
    assert code is INVALID and "mounts[0].uidMappings" in text


@pytest.mark.parametrize("recursive", [False, True])
def test_read_only(mounted: Mounted, host_folder: Path, recursive: bool) -> None:
    inner = host_folder / "inner"
    inner.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(inner)], check=True)
    container = mounted(mapped_mount(host_folder, "/data", readonly=True, recursive_read_only=recursive))
    assert container.exec("touch /data/x").exit_code != 0
    assert (container.exec("touch /data/inner/x").exit_code != 0) == recursive


def test_mounts_of_the_host_arrive(mounted: Mounted, host_folder: Path) -> None:
    later = host_folder / "later"
    later.mkdir()
    slave = mapped_mount(host_folder, "/data", propagation=pb.PROPAGATION_HOST_TO_CONTAINER)
    container = mounted(slave)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(later)], check=True)
    (later / "file").write_text("x")
    wait_until(lambda: container.exec("test -e /data/later/file").exit_code == 0, "the mount to arrive")


def test_an_image_as_volume(cri: Cri, registry: Registry, user_pod: Pod, tmp_path: Path) -> None:
    layers = []
    for uid in (3, 4):
        layers.append(LayerBuilder().file(f"of-{uid}", "x", mode=0o600, uid=uid, gid=uid).finish())
    before = cri.image
    for name, content in (("one", layers[:1]), ("two", layers)):
        write_layout(tmp_path / name, content)
        image, cri.image = cri.pull(registry.push(tmp_path / name, f"userns-{name}")), before
        mount = pb.Mount(image=pb.ImageSpec(image=image), container_path="/volume", readonly=True)
        container = user_pod.run("stat -c %u:%g /volume /volume/*", linux=inside(), mounts=[mount])
        owners = ["0:0", "3:3", "4:4"][: len(content) + 1]
        assert container.output.split() == owners and container.status.exit_code == 0
        container.remove()
        cri.images.RemoveImage(pb.RemoveImageRequest(image=pb.ImageSpec(image=image)))

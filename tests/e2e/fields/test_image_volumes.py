"""Images as volumes: what the container sees of them, what is refused, how long they are kept."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness.daemon import Daemon
from harness.image import LayerBuilder, write_layout
from harness.registry import Registry
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Cri, Pod, refusal

pytestmark = pytest.mark.root

SCRIPT = "#!/bin/sh\necho it runs\n"


@pytest.fixture
def volume(cri: Cri, registry: Registry, tmp_path: Path) -> Iterator[str]:
    """Id of an image of two layers: the upper one changes the lower, deletes from it, and has tricks."""
    low = LayerBuilder().directory("data").directory("data/sub").directory("etc")
    low.file("data/kept", f"{uuid.uuid4()}\n").file("data/gone", "x").file("data/sub/deep", "deep\n")
    low.file("etc/passwd", "of the volume\n").file("run", SCRIPT, mode=0o755)
    top = LayerBuilder().file("data/.wh.gone", "").file("data/sub/added", "added\n")
    top.symlink("out", "../../../../../../../../..").symlink("shadow", "/etc/shadow")
    top.symlink("data/up", "../../../etc").symlink("host", "/proc/1/root")
    write_layout(tmp_path / "volume", [low.finish(), top.finish()])
    yield from pulled(cri, registry.push(tmp_path / "volume", "volume"))


@pytest.fixture
def thin(cri: Cri, registry: Registry, tmp_path: Path) -> Iterator[str]:
    """Id of an image of one layer, with a whiteout that hides nothing."""
    layer = LayerBuilder().file("file", f"{uuid.uuid4()}\n").file(".wh.nothing", "")
    write_layout(tmp_path / "thin", [layer.finish()])
    yield from pulled(cri, registry.push(tmp_path / "thin", "thin"))


def pulled(cri: Cri, reference: str) -> Iterator[str]:
    of_containers, image_id = cri.image, cri.pull(reference)
    cri.image = of_containers
    yield image_id
    cri.images.RemoveImage(pb.RemoveImageRequest(image=pb.ImageSpec(image=image_id)))


def at_volume(image: str, sub_path: str = "", **fields: Any) -> list[pb.Mount]:
    made = {"container_path": "/volume", "readonly": True, "image_sub_path": sub_path}
    return [pb.Mount(image=pb.ImageSpec(image=image), **{**made, **fields})]


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"readonly": False}, grpc.StatusCode.INVALID_ARGUMENT, "must be read-only"),
        ({"host_path": "/etc"}, grpc.StatusCode.INVALID_ARGUMENT, "cannot be combined with an image"),
        ({"sub_path": "/etc"}, grpc.StatusCode.INVALID_ARGUMENT, "image_sub_path"),
        ({"sub_path": "data/../etc"}, grpc.StatusCode.INVALID_ARGUMENT, "image_sub_path"),
        ({"sub_path": "missing"}, grpc.StatusCode.NOT_FOUND, "'missing' does not exist"),
        ({"sub_path": "data/gone"}, grpc.StatusCode.NOT_FOUND, "does not exist"),
        ({"sub_path": "shadow"}, grpc.StatusCode.NOT_FOUND, "does not exist"),
        ({"sub_path": "host"}, grpc.StatusCode.NOT_FOUND, "does not exist"),
        ({"propagation": pb.PROPAGATION_BIDIRECTIONAL}, grpc.StatusCode.INVALID_ARGUMENT, "propagation"),
        ({"container_path": "/"}, grpc.StatusCode.INVALID_ARGUMENT, "root"),
    ],
)
def test_refused_when_created(
    pod: Pod, volume: str, fields: dict[str, Any], code: grpc.StatusCode, words: str
) -> None:
    told, text = refusal(lambda: pod.create("true", mounts=at_volume(volume, **fields)))
    assert (told, "ImageVolumeMountFailed" in text) == (code, True), text
    assert words in text


@pytest.mark.parametrize("name", ["", "nowhere/unknown:latest", "sha256:" + "0" * 64])
def test_an_image_that_is_not_there(pod: Pod, name: str) -> None:
    code, text = refusal(lambda: pod.create("true", mounts=at_volume(name)))
    assert code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
    assert "ImageVolumeMountFailed" in text


def test_the_whole_image(pod: Pod, volume: str) -> None:
    container = pod.start("sleep 100", mounts=at_volume(volume))
    assert container.tell("/volume/run") == "it runs"
    assert container.tell("cat /volume/etc/passwd") == "of the volume"
    assert container.tell("ls /volume/data").split() == ["kept", "sub", "up"]
    assert container.tell("ls /volume/data/sub").split() == ["added", "deep"]
    for script in ("touch /volume/x", "rm /volume/run", "echo x > /volume/data/kept", "mkdir /volume/etc/d"):
        assert b"Read-only file system" in container.exec(script).stderr


@pytest.mark.parametrize(
    ("sub_path", "expected"),
    [
        ("data/sub", "added deep"),
        ("./data//sub/", "added deep"),
        ("data/up", "passwd"),  # a link that climbs out ends at the image's own root
        ("out", "data etc host out run shadow"),
    ],
)
def test_a_folder_of_it(pod: Pod, volume: str, sub_path: str, expected: str) -> None:
    container = pod.start("sleep 100", mounts=at_volume(volume, sub_path))
    assert container.tell("ls /volume").split() == expected.split()
    assert container.exec("touch /volume/x").exit_code != 0


def test_a_file_of_it(pod: Pod, volume: str) -> None:
    container = pod.start("sleep 100", mounts=at_volume(volume, "run"))
    assert container.tell("/volume") == "it runs"
    assert b"Read-only" in container.exec("echo x > /volume").stderr


def test_a_single_layer(pod: Pod, thin: str) -> None:
    container = pod.start("sleep 100", mounts=at_volume(thin))
    assert container.tell("ls -A /volume") == "file"
    assert container.exec("touch /volume/x").exit_code != 0


def test_several_beside_other_mounts(pod: Pod, volume: str, thin: str, tmp_path: Path) -> None:
    mounts = [
        *at_volume(thin, container_path="/volume/data/thin"),
        pb.Mount(container_path="/volume", host_path=str(tmp_path / "on the node")),
        *at_volume(volume, "data", container_path="/volume/data"),
    ]
    code, text = refusal(lambda: pod.start("true", mounts=mounts))
    assert (code, "/volume/data/thin" in text) == (grpc.StatusCode.INTERNAL, True), (
        "nothing can be made there"
    )
    mounts[0].container_path = "/volume/thin"
    container = pod.start("sleep 100", mounts=mounts)
    assert container.tell("ls /volume").split() == ["data", "thin"]
    assert container.tell("ls /volume/thin") == "file"
    assert [mount.container_path for mount in container.status.mounts] == [
        mount.container_path for mount in mounts
    ]


def test_what_status_says(pod: Pod, volume: str) -> None:
    container = pod.run("true", mounts=at_volume(volume, "data"))
    (mount,) = container.status.mounts
    assert (mount.image.image, mount.image.image_ref) == (volume, volume)
    assert (mount.image_sub_path, mount.readonly, mount.host_path) == ("data", True, "")


def test_a_removed_image_stays_until_its_containers_are_gone(
    node: Daemon, cri: Cri, pod: Pod, volume: str
) -> None:
    before = layers(node)
    container = pod.start("sleep 100", mounts=at_volume(volume))
    cri.images.RemoveImage(pb.RemoveImageRequest(image=pb.ImageSpec(image=volume)))
    status = cri.images.ImageStatus(pb.ImageStatusRequest(image=pb.ImageSpec(image=volume)))
    assert not status.HasField("image")
    assert layers(node) == before
    assert container.tell("cat /volume/data/sub/deep") == "deep"
    container.stop()
    container.remove()
    assert len(layers(node)) == len(before) - 2


def test_across_a_restart(node: Daemon, cri: Cri, pod: Pod, volume: str) -> None:
    started = pod.start("sleep 100", mounts=at_volume(volume))
    created = pod.create("cat /volume/data/sub/deep", mounts=at_volume(volume))
    cri.images.RemoveImage(pb.RemoveImageRequest(image=pb.ImageSpec(image=volume)))
    node.restart()
    cri.wait_served()
    assert started.tell("cat /volume/data/sub/deep") == "deep"
    created.start()
    created.wait_exited()
    assert created.output == "deep"


def layers(node: Daemon) -> set[str]:
    return {path.name for path in (node.root / "layers").iterdir() if not path.name.endswith(".json")}

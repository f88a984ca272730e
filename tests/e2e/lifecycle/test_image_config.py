"""What an image says of its process, and how a request adds to it or replaces it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.image import ImageConfig, LayerBuilder, busybox_layer, write_layout
from harness.registry import Registry
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Container, Cri, Pod, linux, refusal

pytestmark = pytest.mark.root

SCRIPT = "#!/bin/sh\ntrap 'exit 5' USR1\ntrap 'exit 6' TERM\necho $0 $*\nwhile :; do sleep 0.05; done\n"
CONFIG = ImageConfig(
    entrypoint=["/bin/serve", "first"],
    cmd=["second"],
    env=["PATH=/usr/bin:/bin", "COLOUR=red", "SHAPE=round"],
    user="www-data",
    working_dir="/var/work",
    volumes=["/var/data"],
    stop_signal="SIGUSR1",
)


@pytest.fixture
def image(cri: Cri, registry: Registry, tmp_path: Path) -> Iterator[pb.ImageSpec]:
    layer = LayerBuilder().file("bin/serve", SCRIPT, mode=0o755).directory("var/data", uid=33, gid=33)
    layer.file("var/data/seed", f"{uuid.uuid4()}\n", uid=33, gid=33)
    write_layout(tmp_path / "layout", [busybox_layer(), layer.finish()], CONFIG)
    reference = registry.push(tmp_path / "layout", "configured")
    shared, spec = cri.image, pb.ImageSpec(image=cri.pull(reference))
    cri.image = shared
    yield spec
    cri.images.RemoveImage(pb.RemoveImageRequest(image=spec))


def started(pod: Pod, image: pb.ImageSpec, **fields: object) -> Container:
    container = pod.start([], image=image, **fields)
    container.wait_output("/bin/serve")
    return container


def test_the_images_own(pod: Pod, image: pb.ImageSpec) -> None:
    container = started(pod, image)
    assert container.output == "/bin/serve first second"
    assert container.tell("id -un; pwd; echo $COLOUR $SHAPE").split() == [
        "www-data",
        "/var/work",
        "red",
        "round",
    ]
    assert container.status.stop_signal == pb.SIGUSR1
    container.stop(timeout=30)
    assert container.status.exit_code == 5


def test_args_replace_cmd_alone(pod: Pod, image: pb.ImageSpec) -> None:
    assert started(pod, image, args=["mine", "too"]).output == "/bin/serve first mine too"


def test_a_command_replaces_both(pod: Pod, image: pb.ImageSpec) -> None:
    assert pod.run(["echo", "alone"], image=image).output == "alone"


def test_the_request_wins(pod: Pod, image: pb.ImageSpec) -> None:
    container = started(
        pod,
        image,
        envs=[pb.KeyValue(key="COLOUR", value=b"blue")],
        working_dir="/tmp",
        linux=linux(run_as_user=pb.Int64Value(value=0)),
        stop_signal=pb.SIGTERM,
    )
    assert container.tell("id -u; pwd; echo $COLOUR $SHAPE").split() == ["0", "/tmp", "blue", "round"]
    container.stop(timeout=30)
    assert container.status.exit_code == 6


def test_a_volume_starts_as_the_image_has_it_and_is_the_containers_own(pod: Pod, image: pb.ImageSpec) -> None:
    one, two = started(pod, image), started(pod, image)
    assert one.tell("stat -c %U /var/data /var/data/seed").split() == ["www-data"] * 2
    one.tell("echo mine > /var/data/new")
    assert two.tell("ls /var/data") == "seed"


def test_a_mount_replaces_a_volume(pod: Pod, image: pb.ImageSpec, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    mount = pb.Mount(container_path="/var/data", host_path=str(tmp_path / "volume"))
    assert started(pod, image, mounts=[mount]).tell("ls /var/data") == ""


def test_names_and_ids_of_the_image_agree_everywhere(cri: Cri, pod: Pod, image: pb.ImageSpec) -> None:
    container = started(pod, image)
    told = cri.images.ImageStatus(pb.ImageStatusRequest(image=image)).image
    (listed,) = cri.runtime.ListContainers(pb.ListContainersRequest()).containers
    assert told.id == listed.image_id == container.status.image_id == image.image
    assert told.username == "www-data"
    assert not told.HasField("uid")
    assert container.status.image_ref in told.repo_digests


def test_a_removed_image_goes_when_its_last_container_does(cri: Cri, pod: Pod, image: pb.ImageSpec) -> None:
    container = started(pod, image)
    cri.images.RemoveImage(pb.RemoveImageRequest(image=image))
    assert not cri.images.ImageStatus(pb.ImageStatusRequest(image=image)).HasField("image")
    assert container.tell("cat /bin/serve").startswith("#!/bin/sh")
    assert "not found" in refusal(lambda: pod.create([], image=image))[1]

"""Containers and image volumes of images that have a layer several times, or very many layers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import count as numbers

import grpc
import pytest

from harness.image import LayerBuilder, busybox_layer
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.images.manifests import config_of, manifest_of, serve
from tests.e2e.images.spec_registry import SpecRegistry
from tests.e2e.lifecycle.client import Cri, Pod, linux, refusal

pytestmark = pytest.mark.root

Push = Callable[[Sequence[bytes]], str]

BASE = busybox_layer()
DATA = LayerBuilder().directory("data").file("data/low", "low").file("data/both", "low\n").finish()
CHANGE = LayerBuilder().directory("data").file("data/.wh.low", "").file("data/both", "top\n").finish()
OPAQUE = LayerBuilder().directory("data").file("data/.wh..wh..opq", "").file("data/new", "new\n").finish()


@pytest.fixture
def push(cri: Cri) -> Iterator[Push]:
    """Serves an image of these layers, lowest first; what was pulled is removed at the end."""
    shared, names = cri.image, numbers()
    with SpecRegistry() as registry:

        def serve_layers(layers: Sequence[bytes]) -> str:
            config = config_of(layers)
            document = manifest_of(config, layers)
            return serve(registry, f"odd{next(names)}", document, [config, *layers])

        yield serve_layers
    cri.remove_pods()
    for image in cri.images.ListImages(pb.ListImagesRequest()).images:
        if image.id != shared:
            cri.images.RemoveImage(pb.RemoveImageRequest(image=pb.ImageSpec(image=image.id)))
    cri.image = shared


def many(count: int) -> list[bytes]:
    """A busybox and layers that each change one file and add another, all in one folder."""
    rest = [
        LayerBuilder()
        .directory("data")
        .file("data/last", f"{number}\n")
        .file(f"data/f{number}", f"{number}\n")
        .finish()
        for number in range(1, count)
    ]
    return [BASE, *rest]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((BASE, BASE), ""),
        ((BASE, DATA, DATA, BASE), "both low"),
        ((BASE, DATA, CHANGE), "both"),
        ((BASE, DATA, CHANGE, DATA), "both low"),
        ((BASE, DATA, CHANGE, DATA, CHANGE), "both"),
        ((BASE, DATA, OPAQUE, DATA), "both low new"),
        ((BASE, OPAQUE, DATA, OPAQUE), "new"),
    ],
)
def test_a_layer_several_times(
    cri: Cri, pod: Pod, push: Push, layers: Sequence[bytes], expected: str
) -> None:
    cri.pull(push(layers))
    container = pod.start("sleep 100")
    assert container.tell("ls /data 2>/dev/null || true").split() == expected.split()
    assert container.tell("echo x > /data/written && cat /data/written" if expected else "echo x") == "x"


@pytest.mark.parametrize(
    ("sub_path", "script", "expected"),
    [
        ("", "cat /volume/data/both; ls /volume/data", "low both low new"),
        ("data", "cat /volume/both; ls /volume", "low both low new"),
        ("data/both", "cat /volume", "low"),
        ("data/new", "cat /volume", "new"),
    ],
)
def test_as_a_volume(cri: Cri, pod: Pod, push: Push, sub_path: str, script: str, expected: str) -> None:
    layers = (BASE, DATA, OPAQUE, DATA, OPAQUE, DATA)
    mount = volume(cri, push(layers), sub_path)
    container = pod.start("sleep 100", mounts=[mount])
    assert container.tell(script).split() == expected.split()
    container.stop()
    cri.images.RemoveImage(pb.RemoveImageRequest(image=mount.image))
    code, _ = refusal(lambda: pod.create("true", mounts=[mount]))
    assert code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("count", [127, 300, 499])
def test_many_layers(cri: Cri, pod: Pod, push: Push, count: int) -> None:
    image = cri.pull(push(many(count)))
    container = pod.start("sleep 100", mounts=[volume(cri, image, ""), volume(cri, image, "data", "/below")])
    for folder in ("/data", "/volume/data", "/below"):
        assert container.tell(f"cat {folder}/last {folder}/f1").split() == [str(count - 1), "1"]
        assert container.tell(f"ls {folder} | wc -l") == str(count)
    assert container.tell("echo x > /data/f1 && cat /data/f1") == "x"
    assert container.status.image_id == image
    shown = cri.images.ImageStatus(pb.ImageStatusRequest(image=pb.ImageSpec(image=image), verbose=True))
    assert shown.image.id == image
    assert len(json.loads(shown.info["info"])["layers"]) == count


def test_many_layers_with_ids_of_its_own(cri: Cri, make_pod: Callable[..., Pod], push: Push) -> None:
    """Each layer is mapped by itself, so each takes a descriptor and a mount."""
    image = cri.pull(push(many(499)))
    mapping = pb.IDMapping(host_id=1_000_000, container_id=0, length=65536)
    users = pb.UserNamespace(mode=pb.POD, uids=[mapping], gids=[mapping])
    options = pb.NamespaceOption(pid=pb.CONTAINER, userns_options=users)
    pod = make_pod(
        linux=pb.LinuxPodSandboxConfig(
            security_context=pb.LinuxSandboxSecurityContext(namespace_options=options)
        )
    )
    container = pod.start(
        "sleep 100", linux=linux(namespace_options=options), mounts=[volume(cri, image, "data")]
    )
    assert container.tell("cat /data/last /volume/last; stat -c %u /data/f1").split() == ["498", "498", "0"]


def test_more_layers_than_the_kernel_stacks(cri: Cri, push: Push) -> None:
    name = push(many(500))
    code, text = refusal(lambda: cri.pull(name))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "500 layers" in text
    assert "499" in text


def volume(cri: Cri, image: str, sub_path: str, path: str = "/volume") -> pb.Mount:
    """A mount of an image that is pulled for it; containers run what they ran before."""
    of_containers = cri.image
    if not image.startswith("sha256:"):
        image = cri.pull(image)
        cri.image = of_containers
    return pb.Mount(
        container_path=path, readonly=True, image=pb.ImageSpec(image=image), image_sub_path=sub_path
    )

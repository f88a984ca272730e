"""Containers of images whose manifests call things by other types, or that have no root file system."""

from __future__ import annotations

import json
from collections.abc import Iterator

import grpc
import pytest

from harness.image import busybox_layer, digest_of
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.images.manifests import OCTETS, TAR, WASM, config_of, manifest_of, serve
from tests.e2e.images.spec_registry import SpecRegistry
from tests.e2e.lifecycle.client import Cri, Pod, refusal

pytestmark = pytest.mark.root


@pytest.fixture
def spec_registry(cri: Cri) -> Iterator[SpecRegistry]:
    """Images of it are removed at the end; the one that containers run otherwise stays."""
    shared = cri.image
    with SpecRegistry() as running:
        yield running
    for image in cri.images.ListImages(pb.ListImagesRequest()).images:
        if image.id != shared:
            cri.images.RemoveImage(pb.RemoveImageRequest(image=pb.ImageSpec(image=image.id)))
    cri.image = shared


def test_config_and_layers_of_another_type_run(cri: Cri, pod: Pod, spec_registry: SpecRegistry) -> None:
    layer = busybox_layer()
    config = config_of(
        (layer,), config={"Cmd": None, "Env": None, "Labels": None, "Entrypoint": None, "Volumes": None}
    )
    document = manifest_of(config, (layer,), (OCTETS,), OCTETS)
    image = pb.ImageSpec(image=cri.pull(serve(spec_registry, "octets", document, [config, layer])))
    container = pod.start("echo it runs", image=image)
    container.wait_output("it runs")


ARTIFACTS = {
    "oras": (
        b"{}",
        "application/vnd.oci.empty.v1+json",
        b"text",
        "text/plain",
        "application/vnd.example.thing",
    ),
    "helm": (b'{"name": "x"}', "application/vnd.cncf.helm.config.v1+json", busybox_layer(), TAR, ""),
    "wasm": (b'{"os": "wasip1"}', "application/vnd.wasm.config.v0+json", WASM, "application/wasm", ""),
    "wasm in an image": (
        config_of((WASM,)),
        "application/vnd.oci.image.config.v1+json",
        WASM,
        "application/wasm",
        "",
    ),
}


@pytest.mark.parametrize("shape", ARTIFACTS)
def test_an_artifact_says_so_at_create(cri: Cri, pod: Pod, spec_registry: SpecRegistry, shape: str) -> None:
    config, config_type, layer, layer_type, artifact_type = ARTIFACTS[shape]
    more = {"artifactType": artifact_type} if artifact_type else {}
    document = manifest_of(config, (layer,), (layer_type,), config_type, **more)
    name = serve(spec_registry, "thing", document, [config, layer])
    is_image = shape == "wasm in an image"
    assert cri.pull(name) == digest_of(config if is_image else json.dumps(document).encode())
    code, text = refusal(lambda: pod.create("true", image=pb.ImageSpec(image=name)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert name in text
    assert "no root file system" in text
    assert (layer_type if is_image else artifact_type or config_type) in text
    assert cri.containers() == set()


def test_an_image_without_layers_is_an_empty_root(cri: Cri, pod: Pod, spec_registry: SpecRegistry) -> None:
    """As containerd takes it: what it runs comes with its mounts."""
    config = config_of(())
    name = serve(spec_registry, "scratch", manifest_of(config, ()), [config])
    cri.pull(name)
    busybox = pb.Mount(container_path="/bin", host_path="/bin", readonly=True)
    libraries = [
        pb.Mount(container_path=path, host_path=path, readonly=True) for path in ("/usr", "/lib", "/lib64")
    ]
    container = pod.start(
        ["/bin/busybox", "ls", "/"], image=pb.ImageSpec(image=name), mounts=[busybox, *libraries]
    )
    container.wait_output("usr")

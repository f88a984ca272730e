"""The native driver: processes of the image's own programs, on its root file system."""

from __future__ import annotations

from collections.abc import Mapping

from phantom_cri import codec, requests
from phantom_cri.images import ImageService
from phantom_cri.model import ContainerRecord, Image, SandboxRecord
from phantom_cri.plans import ContainerSpec
from phantom_cri.requests import Resolved, Surroundings


class NativeDriver:
    """A `Driver`."""

    def __init__(self, images: ImageService) -> None:
        self._images = images

    def check_image(self, image: Image, annotations: Mapping[str, str]) -> None:
        self._images.check_root(image.id)

    def resolve(self, record: ContainerRecord, pod: SandboxRecord) -> Resolved:
        found = requests.resolve(
            requests.effective(record),
            record.image,
            pod.config,
            record.image_mounts,
            hostname=pod.hostname,
            user=record.user,
        )
        devices = requests.all_devices(record, pod.config.security.namespaces, found.devices)
        return codec.replace(found, devices=devices)

    def container_spec(self, resolved: Resolved, given: Surroundings) -> ContainerSpec:
        return requests.container_spec(resolved, given)

"""The image service's verbs: thin over `phantom_cri.images`, which knows nothing of containers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping

from phantom_cri.errors import PhantomError
from phantom_cri.images import LayerReport
from phantom_cri.lifecycle.node import Node
from phantom_cri.model import AuthConfig, FilesystemUsage, Image, ImageSpec

log = logging.getLogger(__name__)


class ImageVerbs:
    """`phantom_cri.cri.verbs.ImageVerbs`, and the two of the node service, over one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def list_images(self, image: str = "") -> Iterable[Image]:
        return self._node.images.list(image)

    async def image_status(self, image: str) -> Image | None:
        return self._node.images.find(image)

    async def image_info(self, image_id: str) -> Mapping[str, object]:
        return self._node.images.info(image_id)

    async def pull_image(self, spec: ImageSpec, auth: AuthConfig | None) -> str:
        return await self._pull(spec, auth, None)

    async def pull_with_progress(
        self, spec: ImageSpec, auth: AuthConfig | None, report: LayerReport
    ) -> Image:
        image_id = await self._pull(spec, auth, report)
        return self._node.images.image(image_id)

    async def load_image(self, path: str, report: LayerReport) -> Iterable[Image]:
        return [self._node.images.image(image_id) for image_id in await self._node.images.load(path, report)]

    async def remove_image(self, image: str) -> None:
        await self._node.images.remove(image)

    async def image_fs_info(self) -> Iterable[FilesystemUsage]:
        return [self._node.images.filesystem_usage()]

    async def _pull(self, spec: ImageSpec, auth: AuthConfig | None, report: LayerReport | None) -> str:
        began = time.monotonic()
        fetched = FetchedBytes(report)
        result = "CANCELLED"
        try:
            image_id = await self._node.images.pull(spec, auth, fetched)
            result = "ok"
        except PhantomError as error:
            result = error.code
            raise
        finally:
            self._node.metrics.image_pulled(result, time.monotonic() - began, fetched.total())
        log.info("image %s is pulled as %s", spec.image, image_id)
        return image_id


class FetchedBytes:
    """Counts what a pull fetched, and passes the progress on."""

    def __init__(self, onward: Callable[..., None] | None) -> None:
        self._onward = onward
        self._done: dict[str, int] = {}

    def __call__(self, digest: str, state: str, done: int, total: int) -> None:
        if state == "downloading":
            self._done[digest] = done
        if self._onward is not None:
            self._onward(digest, state, done, total)

    def total(self) -> int:
        return sum(self._done.values())

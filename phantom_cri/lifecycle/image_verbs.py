"""The image service's verbs: a thin layer over `phantom_cri.images`, which knows nothing of containers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping

from phantom_cri.errors import PhantomError
from phantom_cri.images import LayerReport, LayerState
from phantom_cri.lifecycle.runtime import Runtime
from phantom_cri.model import AuthConfig, FilesystemUsage, Image, ImageSpec

log = logging.getLogger(__name__)

LOG_INTERVAL_S = 10.0
MIB = 1 << 20


class ImageVerbs:
    """Implements `phantom_cri.cri.verbs.ImageVerbs`, and the two image verbs of the node service."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def list_images(self, image: str = "") -> Iterable[Image]:
        return self._runtime.images.list(image)

    async def image_status(self, image: str) -> Image | None:
        return self._runtime.images.find(image)

    async def image_info(self, image_id: str) -> Mapping[str, object]:
        return self._runtime.images.info(image_id)

    async def pull_image(self, spec: ImageSpec, auth: AuthConfig | None) -> str:
        return await self._pull(spec, auth, None)

    async def pull_with_progress(
        self, spec: ImageSpec, auth: AuthConfig | None, report: LayerReport
    ) -> Image:
        image_id = await self._pull(spec, auth, report)
        return self._runtime.images.image(image_id)

    async def load_image(self, path: str, report: LayerReport) -> Iterable[Image]:
        return [
            self._runtime.images.image(image_id) for image_id in await self._runtime.images.load(path, report)
        ]

    async def remove_image(self, image: str) -> None:
        await self._runtime.images.remove(image)

    async def image_fs_info(self) -> Iterable[FilesystemUsage]:
        return [self._runtime.images.filesystem_usage()]

    async def _pull(self, spec: ImageSpec, auth: AuthConfig | None, report: LayerReport | None) -> str:
        began, metrics = time.monotonic(), self._runtime.metrics
        progress = PullProgress(spec.image, metrics.image_bytes_pulled, report)
        result = "CANCELLED"
        metrics.image_pull_began()
        try:
            image_id = await self._runtime.images.pull(spec, auth, progress)
            result = "ok"
        except PhantomError as error:
            result = error.code
            raise
        finally:
            metrics.image_pulled(result, time.monotonic() - began)
        log.info("image %s pulled as %s", spec.image, image_id)
        return image_id


class PullProgress:
    """Counts the bytes of a pull, logs progress from time to time, and reports it to the caller."""

    def __init__(self, image: str, count: Callable[[int], None], onward: LayerReport | None) -> None:
        self._image, self._count, self._onward = image, count, onward
        self._done: dict[str, int] = {}
        self._total: dict[str, int] = {}
        self._logged = time.monotonic()

    def __call__(self, digest: str, state: LayerState, done: int, total: int) -> None:
        self._total[digest] = total
        if state == "downloading":
            self._count(max(0, done - self._done.get(digest, 0)))
            self._done[digest] = done
            self._log_now_and_then()
        if self._onward is not None:
            self._onward(digest, state, done, total)

    def _log_now_and_then(self) -> None:
        now = time.monotonic()
        if now - self._logged >= LOG_INTERVAL_S:
            self._logged = now
            done, total = sum(self._done.values()), sum(self._total.values())
            log.info("image %s: %.1f of %.1f MiB fetched", self._image, done / MIB, total / MIB)

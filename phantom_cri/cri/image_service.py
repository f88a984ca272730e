"""CRI's ImageService: each RPC converts the request, calls a verb, and converts the result."""

from __future__ import annotations

from collections.abc import AsyncIterator

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.cri.chunks import chunks
from phantom_cri.cri.convert.common import image_spec_from
from phantom_cri.cri.convert.details import image_details
from phantom_cri.cri.convert.image import (
    auth_from,
    filesystem_message,
    image_message,
    image_messages,
    image_name_from,
)
from phantom_cri.cri.verbs import ImageVerbs


class ImageService:
    def __init__(self, verbs: ImageVerbs) -> None:
        self._verbs = verbs

    async def ListImages(self, request: pb.ListImagesRequest) -> pb.ListImagesResponse:
        images = await self._verbs.list_images(request.filter.image.image)
        return pb.ListImagesResponse(images=image_messages(images))

    async def StreamImages(self, request: pb.StreamImagesRequest) -> AsyncIterator[pb.StreamImagesResponse]:
        images = await self._verbs.list_images(request.filter.image.image)
        for chunk in chunks(image_messages(images)):
            yield pb.StreamImagesResponse(images=chunk)

    async def ImageStatus(self, request: pb.ImageStatusRequest) -> pb.ImageStatusResponse:
        image = await self._verbs.image_status(image_name_from(request.image))
        if image is None:
            return pb.ImageStatusResponse()
        details = image_details(await self._verbs.image_info(image.id)) if request.verbose else {}
        return pb.ImageStatusResponse(image=image_message(image), info=details)

    async def PullImage(self, request: pb.PullImageRequest) -> pb.PullImageResponse:
        image_name_from(request.image)
        auth = auth_from(request.auth) if request.HasField("auth") else None
        image_id = await self._verbs.pull_image(image_spec_from(request.image), auth)
        return pb.PullImageResponse(image_ref=image_id)

    async def RemoveImage(self, request: pb.RemoveImageRequest) -> pb.RemoveImageResponse:
        await self._verbs.remove_image(image_name_from(request.image))
        return pb.RemoveImageResponse()

    async def ImageFsInfo(self, request: pb.ImageFsInfoRequest) -> pb.ImageFsInfoResponse:
        """Layers and containers are on the same filesystem, so both lists are equal."""
        usages = [filesystem_message(usage) for usage in await self._verbs.image_fs_info()]
        return pb.ImageFsInfoResponse(image_filesystems=usages, container_filesystems=usages)

"""Images and their filesystem: Image, AuthConfig, FilesystemUsage."""

from __future__ import annotations

from collections.abc import Iterable

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.cri.convert.common import HIGHEST_ID
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import AuthConfig, FilesystemUsage, Image


def image_name_from(message: pb.ImageSpec) -> str:
    if not message.image:
        raise InvalidArgument("image.image: a name, digest or id is needed")
    return message.image


def auth_from(message: pb.AuthConfig) -> AuthConfig:
    return AuthConfig(
        username=message.username,
        password=message.password,
        auth=message.auth,
        server_address=message.server_address,
        identity_token=message.identity_token,
        registry_token=message.registry_token,
    )


def image_message(image: Image) -> pb.Image:
    uid, username = _user_of(image)
    return pb.Image(
        id=image.id,
        repo_tags=image.repo_tags,
        repo_digests=image.repo_digests,
        size=image.size,
        uid=None if uid is None else pb.Int64Value(value=uid),
        username=username,
        pinned=image.pinned,
    )


def image_messages(images: Iterable[Image]) -> list[pb.Image]:
    return [image_message(image) for image in images]


def _user_of(image: Image) -> tuple[int | None, str]:
    """A numeric user as uid, any other as username, without its group: used by runAsNonRoot."""
    user = image.config.user.partition(":")[0]
    if user.isascii() and user.isdigit() and len(user) <= 10 and int(user) <= HIGHEST_ID:
        return int(user), ""
    return None, user


def filesystem_message(usage: FilesystemUsage) -> pb.FilesystemUsage:
    return pb.FilesystemUsage(
        timestamp=usage.timestamp,
        fs_id=pb.FilesystemIdentifier(mountpoint=usage.mountpoint),
        used_bytes=pb.UInt64Value(value=usage.used_bytes),
        inodes_used=pb.UInt64Value(value=usage.inodes_used),
    )

"""`phantom images`, `pull`, `load` and `rmi`."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from typing import Any

from phantom_cri.api.cri.v1 import api_pb2 as cri
from phantom_cri.api.phantom.v1 import node_pb2 as wire
from phantom_cri.cli.connection import connect
from phantom_cri.cli.failure import Failure
from phantom_cri.cli.progress import follow
from phantom_cri.cli.tables import print_json, short_id, size, table


async def images(args: Namespace) -> int:
    async with connect(args.host) as daemon:
        found = (await daemon.images.ListImages(cri.ListImagesRequest())).images
    if args.json:
        print_json([_described(image) | {"pinned": image.pinned} for image in found])
    elif args.quiet:
        for image in found:
            print(image.id if args.no_trunc else short_id(image.id))
    else:
        print(images_table(found, digests=args.digests, whole_ids=args.no_trunc))
    return 0


def images_table(found: Any, *, digests: bool = False, whole_ids: bool = False) -> str:
    """One row per name, as in docker; an image without a tag has `<none>`."""
    header = ("IMAGE", "TAG", *(("DIGEST",) if digests else ()), "IMAGE ID", "SIZE")
    rows = []
    for image in found:
        known = [reference.partition("@") for reference in image.repo_digests]
        names = [tuple(reference.rsplit(":", 1)) for reference in image.repo_tags]
        names = names or [(name, "<none>") for name, _, _ in known] or [("<none>", "<none>")]
        for name, tag in sorted(names):
            digest = next((digest for repository, _, digest in known if repository == name), "<none>")
            shown = (digest if whole_ids else digest[:19],) if digests else ()
            rows.append((name, tag, *shown, image.id if whole_ids else short_id(image.id), size(image.size)))
    return table(header, sorted(rows))


def _described(image: cri.Image | wire.LoadedImage) -> dict[str, Any]:
    return {
        "id": image.id,
        "repo_tags": list(image.repo_tags),
        "repo_digests": list(image.repo_digests),
        "size": image.size,
    }


async def pull(args: Namespace) -> int:
    request = wire.PullRequest(image=cri.ImageSpec(image=args.image), auth=credentials(args))
    async with connect(args.host) as daemon:
        made = await follow(daemon.node.Pull(request), quiet=args.quiet or args.json)
    if args.json:
        print_json(_described(made[0]))
    elif args.quiet:
        print(made[0].id)
    else:
        print(f"Image is up to date for {made[0].id}")
    return 0


def credentials(args: Namespace) -> cri.AuthConfig | None:
    """From --creds or --auth; secrets can be read from standard input, as the process list is public."""
    if args.auth:
        text = _secret("--auth") if args.auth == "-" else args.auth
        return cri.AuthConfig(auth=text)
    if not args.creds:
        return None
    user, given, password = args.creds.partition(":")
    if not user:
        raise Failure("--creds: must be USER or USER:PASSWORD, the user is empty")
    return cri.AuthConfig(username=user, password=password if given else _secret("--creds"))


def _secret(flag: str) -> str:
    if sys.stdin.isatty():
        from getpass import getpass

        return getpass(f"{flag}: ")
    secret = sys.stdin.readline().rstrip("\r\n")
    if not secret:
        raise Failure(f"{flag}: nothing on standard input")
    return secret


async def load(args: Namespace) -> int:
    path = _archive(args.file)
    async with connect(args.host) as daemon:
        loaded = await follow(
            daemon.node.LoadImage(wire.LoadImageRequest(path=path)), quiet=args.quiet or args.json
        )
    if args.json:
        print_json([_described(image) for image in loaded])
    else:
        for image in loaded:
            for name in image.repo_tags or [f"ID {image.id}"]:
                print(f"Loaded image: {name}" if image.repo_tags else f"Loaded image {name}")
    return 0


def _archive(file: str) -> str:
    path = os.path.abspath(file)
    if not os.path.isfile(path):
        raise Failure(f"cannot load {file}: {'not a file' if os.path.exists(path) else 'No such file'}")
    return path


async def remove(args: Namespace) -> int:
    """Reports unknown images, for which CRI's RemoveImage succeeds."""
    async with connect(args.host) as daemon:
        for name in args.images:
            spec = cri.ImageSpec(image=name)
            status = await daemon.images.ImageStatus(cri.ImageStatusRequest(image=spec))
            if not status.HasField("image"):
                raise Failure(f"No such image: {name}")
            await daemon.images.RemoveImage(cri.RemoveImageRequest(image=spec))
            if args.json:
                print_json({"removed": name, "id": status.image.id})
            else:
                print(f"Removed: {name}")
    return 0

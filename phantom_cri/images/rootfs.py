"""Reads a stack of layer folders as overlayfs would show it, without mounting it.

Rules (kernel Documentation/filesystems/overlayfs.rst): the topmost layer with a name wins; folders of several
layers are merged until one is opaque; a character device 0:0 hides lower entries. Symbolic links are followed
inside the stack, `..` stops at its root.
Layer folders are not changed after their creation, so plain paths are safe: every component was checked to be
a real folder in its layer.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from phantom_cri.errors import FailedPrecondition

LINK_LIMIT = 40  # as the kernel's MAXSYMLINKS
OPAQUE_XATTRS = ("trusted.overlay.opaque", "user.overlay.opaque")


@dataclass(frozen=True, slots=True)
class Found:
    """A path of the stack: its attributes, its real path, and the folders merged there."""

    status: os.stat_result
    real: str
    folders: tuple[str, ...] = ()


def read(layers: Sequence[str], path: str, *, limit: int = 16 << 20) -> bytes | None:
    """Content of a regular file (following symbolic links), None if it does not exist.

    `layers` are absolute folders, top first. Raises FailedPrecondition for more than `limit` bytes.
    """
    found = resolve(layers, path)
    if found is None or not stat.S_ISREG(found.status.st_mode):
        return None
    if found.status.st_size > limit:
        raise FailedPrecondition(
            f"image file {path!r}: {found.status.st_size} bytes, at most {limit} are read"
        )
    fd = os.open(found.real, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        return file.read(limit)


def resolve(layers: Sequence[str], path: str) -> Found | None:
    """Look up `path`, following all symbolic links; None if it does not exist."""
    root = _root(layers)
    here = [root]
    pending = path.split("/")[::-1]
    links = 0
    while pending:
        name = pending.pop()
        if name in ("", "."):
            continue
        if name == "..":
            here = here[:-1] or [root]
            continue
        found = child(here[-1].folders, name)
        if found is None:
            return None
        if not stat.S_ISLNK(found.status.st_mode):
            here.append(found)
            continue
        links += 1
        if links > LINK_LIMIT:
            return None
        target = os.readlink(found.real)
        here = [root] if target.startswith("/") else here
        pending.extend(target.split("/")[::-1])
    return here[-1]


def lookup(layers: Sequence[str], path: str) -> Found | None:
    """Look up a clean relative path without following symbolic links."""
    found = _root(layers)
    for name in path.split("/") if path else ():
        step = child(found.folders, name)
        if step is None:
            return None
        found = step
    return found


def child(folders: Sequence[str], name: str) -> Found | None:
    """The entry `name` of a merged folder."""
    status: os.stat_result | None = None
    merged: list[str] = []
    for folder in folders:
        real = f"{folder}/{name}"
        try:
            below = os.lstat(real)
        except FileNotFoundError:
            continue
        if is_whiteout(below):
            break
        if not stat.S_ISDIR(below.st_mode):
            if not merged:
                return Found(below, real)
            break
        status = status or below
        merged.append(real)
        if is_opaque(real):
            break
    return Found(status, merged[0], tuple(merged)) if status else None


def children(folders: Sequence[str]) -> Iterator[tuple[str, Found]]:
    """Every visible entry of a merged folder."""
    names = dict.fromkeys(name for folder in folders for name in os.listdir(folder))
    for name in names:
        if (found := child(folders, name)) is not None:
            yield name, found


def is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(folder: str) -> bool:
    for name in OPAQUE_XATTRS:
        try:
            if os.getxattr(folder, name, follow_symlinks=False) == b"y":
                return True
        except OSError:  # ENODATA: not set; ENOTSUP: not supported by the file system
            continue
    return False


def _root(layers: Sequence[str]) -> Found:
    if not layers:
        return Found(os.stat_result((stat.S_IFDIR | 0o755, *[0] * 9)), "")
    return Found(os.lstat(layers[0]), layers[0], tuple(layers))

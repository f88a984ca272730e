"""Volumes from images: mounts of an image, and the initial content of volumes declared by an image."""

from __future__ import annotations

import stat
from collections.abc import Sequence

from phantom_cri.errors import FailedPrecondition, InvalidArgument, NotFound
from phantom_cri.images import rootfs
from phantom_cri.images.tree import Tree, copy_entry, copy_xattrs


def stack(layers: Sequence[str], sub_path: str, empty: str) -> tuple[str, ...]:
    """The folders for overlayfs, top first, to show the image's content at `sub_path`; or a single file.

    Links and `..` stay inside the image; its layers never change, so the result is still valid when it is
    mounted. A single folder gets `empty` below it: bound by itself it would show whiteouts as devices.
    Raises NotFound, FailedPrecondition.
    """
    if not layers:
        raise FailedPrecondition("an artifact without a file system cannot be mounted")
    found = rootfs.resolve(layers, sub_path)
    if found is None:
        raise NotFound(f"{sub_path!r} does not exist in the image")
    if stat.S_ISREG(found.status.st_mode):
        return (found.real,)
    if not stat.S_ISDIR(found.status.st_mode):
        raise FailedPrecondition(f"{sub_path!r} is neither a folder nor a regular file in the image")
    return found.folders if len(found.folders) > 1 else (*found.folders, empty)


def seed_volume(layers: Sequence[str], path: str, target: str) -> None:
    """Copy the image's content at `path` to the empty folder `target`, with all attributes.

    A folder is copied with its own owner and mode; if the image has nothing at `path`, `target` is not
    changed. `layers`: absolute folders, top first. Blocks on the disk. Raises InvalidArgument if the image
    has something else than a folder there.
    """
    found = rootfs.resolve(layers, path)
    if found is None:
        return
    if not stat.S_ISDIR(found.status.st_mode):
        raise InvalidArgument(f"image.volumes: the image has no folder at {path!r} but a file")
    with Tree(target) as tree:
        _Copy(tree).folder(found)


class _Copy:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._links: dict[tuple[int, int], str] = {}  # inodes with several names → the first copy

    def folder(self, root: rootfs.Found) -> None:
        pending = [("", root)]
        finished: list[tuple[str, rootfs.Found]] = []
        while pending:
            path, found = pending.pop()
            finished.append((path, found))
            for name, inner in rootfs.children(found.folders):
                below = f"{path}/{name}" if path else name
                if stat.S_ISDIR(inner.status.st_mode):
                    self._tree.make_folder(below, 0o700)
                    pending.append((below, inner))
                else:
                    self._entry(below, inner)
        for path, found in reversed(finished):
            status = found.status
            mode = stat.S_IMODE(status.st_mode)
            attributes = copy_xattrs(found.real)
            self._tree.dress(path, uid=status.st_uid, gid=status.st_gid, mode=mode, xattrs=attributes)
            self._tree.set_time(path, status.st_mtime_ns)

    def _entry(self, path: str, found: rootfs.Found) -> None:
        key = (found.status.st_dev, found.status.st_ino)
        if key in self._links:
            self._tree.link(self._links[key], path)
            return
        copy_entry(found.real, found.status, self._tree, path)
        if found.status.st_nlink > 1:
            self._links[key] = path

"""A container's changes as an OCI layer (image-spec layer.md, "Representing changes")."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from threading import Event
from typing import BinaryIO

from phantom_cri.errors import FailedPrecondition, ResourceExhausted
from phantom_cri.images.rootfs import OPAQUE_XATTRS
from phantom_cri.images.tree import Tree

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_REDIRECT = "trusted.overlay.redirect"
_OVERLAY = ("trusted.overlay.", "user.overlay.")
_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def write_layer(upper: str, target: str, stop: Event) -> None:
    """Write the overlay's `upper` folder as a tar to `target`, readable by root only.

    The content is hostile: symbolic links are never followed, and only regular files and folders are opened.
    Skipped are sockets, which archives cannot contain, and names that would be read as whiteouts. Raises
    OSError; InterruptedError after `stop` is set; FailedPrecondition for a folder renamed by overlayfs;
    ResourceExhausted for a file that does not fit on `target`'s disk (in an archive, sparse files have full
    size).
    """
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with (
        os.fdopen(descriptor, "wb") as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as layer,
        Tree(upper) as tree,
    ):
        writer = _Writer(layer, descriptor, stop)
        for path, name, folder in _entries(tree):
            writer.add(path, name, folder)


def _entries(tree: Tree) -> Iterator[tuple[str, str, int]]:
    """Path, name and descriptor of its folder for everything below the root; folders before their content."""
    waiting = [""]
    while waiting:
        path = waiting.pop()
        for name in sorted(os.listdir(tree.folder(path))):
            inner = f"{path}/{name}" if path else name
            folder = tree.folder(path)
            yield inner, name, folder
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                waiting.append(inner)


class _Writer:
    def __init__(self, layer: tarfile.TarFile, target: int, stop: Event) -> None:
        self._layer, self._target, self._stop = layer, target, stop
        self._seen: dict[tuple[int, int], str] = {}

    def add(self, path: str, name: str, folder: int) -> None:
        if self._stop.is_set():
            raise InterruptedError("the writing of a layer was stopped")
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind not in _KINDS or name.startswith(_WHITEOUT):
            return
        if kind == stat.S_IFCHR and status.st_rdev == 0:
            self._layer.addfile(_empty(path[: -len(name)] + _WHITEOUT + name, status))
            return
        entry = _entry(path, status)
        first = self._seen.setdefault((status.st_dev, status.st_ino), path)
        if kind != stat.S_IFDIR and first != path:
            entry.type, entry.linkname = tarfile.LNKTYPE, first
            self._layer.addfile(entry)
        elif kind in (stat.S_IFREG, stat.S_IFDIR):
            self._add_opened(entry, name, folder)
        else:
            if kind == stat.S_IFLNK:
                entry.linkname = os.readlink(name, dir_fd=folder)
            self._layer.addfile(entry)

    def _add_opened(self, entry: tarfile.TarInfo, name: str, folder: int) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=folder)
        try:
            attributes = os.listxattr(descriptor)
            if _REDIRECT in attributes:
                raise FailedPrecondition(
                    f"{entry.name}: renamed by overlayfs, which a layer cannot represent"
                )
            entry.pax_headers = {
                f"SCHILY.xattr.{key}": os.getxattr(descriptor, key).decode("utf-8", "surrogateescape")
                for key in attributes
                if not key.startswith(_OVERLAY)
            }
            if entry.isreg():
                self._add_file(entry, descriptor)
                return
            self._layer.addfile(entry)
            if any(key in attributes for key in OPAQUE_XATTRS):
                self._layer.addfile(_empty(f"{entry.name}/{_OPAQUE}", os.fstat(descriptor)))
        finally:
            os.close(descriptor)

    def _add_file(self, entry: tarfile.TarInfo, descriptor: int) -> None:
        entry.size = os.fstat(descriptor).st_size
        room = os.fstatvfs(self._target)
        if entry.size > room.f_bavail * room.f_frsize:
            raise ResourceExhausted(
                f"{entry.name}: its {entry.size} bytes are more than the disk has room for"
            )
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            self._layer.addfile(entry, _Stoppable(file, self._stop))  # type: ignore[arg-type]


class _Stoppable:
    """A file whose copy can be stopped, since copying a large one takes long."""

    def __init__(self, file: BinaryIO, stop: Event) -> None:
        self._file, self._stop = file, stop

    def read(self, size: int) -> bytes:
        if self._stop.is_set():
            raise InterruptedError("the writing of a layer was stopped")
        return self._file.read(size)


def _entry(path: str, status: os.stat_result) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode = _KINDS[stat.S_IFMT(status.st_mode)], stat.S_IMODE(status.st_mode)
    entry.uid, entry.gid, entry.mtime = status.st_uid, status.st_gid, int(status.st_mtime)
    entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return entry


def _empty(path: str, status: os.stat_result) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.mtime = int(status.st_mtime)
    return entry

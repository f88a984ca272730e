"""A folder tree written through folder descriptors only, so that no symbolic link is ever followed.

Paths are canonical: relative to the root, without `.`, `..` or empty components, "" for the root itself, and
every component is a real folder. Each folder is opened component by component with O_NOFOLLOW, and kept open
for further entries.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterable

from phantom_cri.images.rootfs import OPAQUE_XATTRS

_OPEN_FOLDERS = 128
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")


class Tree:
    """Use as a context manager. `privileged`: owners, devices and `trusted.` attributes can be set."""

    def __init__(self, root: str) -> None:
        self._root = os.open(root, _FOLDER_FLAGS)
        self._open: OrderedDict[str, int] = OrderedDict()
        self.privileged = os.geteuid() == 0

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget("")
        os.close(self._root)

    def folder(self, path: str) -> int:
        """Descriptor of a folder; the tree owns it, and closes it when many other folders were opened."""
        if not path:
            return self._root
        fd = self._open.get(path)
        if fd is not None:
            self._open.move_to_end(path)
            return fd
        known = path
        while known and known not in self._open:
            known = split(known)[0]
        base = fd = self._open.get(known, self._root)
        for name in path[len(known) :].strip("/").split("/"):
            above = fd
            try:
                fd = os.open(name, _FOLDER_FLAGS, dir_fd=above)
            finally:
                if above != base:
                    os.close(above)
        self._open[path] = fd
        if len(self._open) > _OPEN_FOLDERS:
            os.close(self._open.popitem(last=False)[1])
        return fd

    def forget(self, path: str) -> None:
        """Close descriptors at and below `path`, which will be removed."""
        below = f"{path}/" if path else ""
        for known in [known for known in self._open if known == path or known.startswith(below)]:
            os.close(self._open.pop(known))

    def status(self, path: str) -> os.stat_result | None:
        """None if it does not exist, also if a parent is not a folder."""
        parent, name = split(path)
        try:
            return os.stat(name or ".", dir_fd=self.folder(parent), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def remove(self, path: str) -> None:
        """Remove a file or a whole folder, however deep."""
        status = self.status(path)
        if status is None:
            return
        if not stat.S_ISDIR(status.st_mode):
            parent, name = split(path)
            os.unlink(name, dir_fd=self.folder(parent))
            return
        pending = [path]
        while pending:
            inner = [
                f"{pending[-1]}/{entry.name}"
                for entry in _entries(self.folder(pending[-1]))
                if not self._unlinked(pending[-1], entry)
            ]
            if inner:
                pending += inner
                continue
            done = pending.pop()
            self.forget(done)
            parent, name = split(done)
            os.rmdir(name, dir_fd=self.folder(parent))

    def make_folder(self, path: str, mode: int) -> None:
        parent, name = split(path)
        os.mkdir(name, 0o700, dir_fd=self.folder(parent))
        os.fchmod(self.folder(path), mode)

    def create(self, path: str) -> int:
        """A new regular file's descriptor; the caller closes it."""
        parent, name = split(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=self.folder(parent))

    def link(self, source: str, path: str) -> None:
        (from_folder, from_name), (parent, name) = split(source), split(path)
        os.link(
            from_name,
            name,
            src_dir_fd=self.folder(from_folder),
            dst_dir_fd=self.folder(parent),
            follow_symlinks=False,
        )

    def symlink(self, target: str, path: str) -> None:
        parent, name = split(path)
        os.symlink(target, name, dir_fd=self.folder(parent))

    def make_node(self, path: str, mode: int, device: int = 0) -> None:
        parent, name = split(path)
        os.mknod(name, mode, device, dir_fd=self.folder(parent))

    def whiteout(self, path: str) -> None:
        self.make_node(path, stat.S_IFCHR, 0)

    def make_opaque(self, path: str) -> None:
        os.setxattr(self.folder(path), OPAQUE_XATTRS[0 if self.privileged else 1], b"y")

    def dress(
        self, path: str, *, uid: int, gid: int, mode: int | None, xattrs: Iterable[tuple[str, bytes]]
    ) -> None:
        """Owner, then extended attributes, then mode: chown(2) clears set-id bits and file capabilities.

        `mode` None for a symbolic link, which has none.
        """
        parent, name = split(path)
        fd = self.folder(parent)
        name = name or "."
        if self.privileged:
            os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
        for key, value in xattrs:
            self._set_xattr(f"/proc/self/fd/{fd}/{name}", key, value)
        if mode is not None:
            os.chmod(name, mode, dir_fd=fd)

    def set_time(self, path: str, nanoseconds: int) -> None:
        parent, name = split(path)
        os.utime(
            name or ".", ns=(nanoseconds, nanoseconds), dir_fd=self.folder(parent), follow_symlinks=False
        )

    def _set_xattr(self, path: str, key: str, value: bytes) -> None:
        try:
            os.setxattr(path, key, value, follow_symlinks=False)
        except OSError as error:
            # Not supported by the file system, or `user.` on something else than a file or folder (xattr(7)).
            ignored = error.errno == errno.ENOTSUP or (error.errno == errno.EPERM and key.startswith("user."))
            if self.privileged and not ignored:
                raise

    def _unlinked(self, folder: str, entry: os.DirEntry[str]) -> bool:
        if entry.is_dir(follow_symlinks=False):
            return False
        os.unlink(entry.name, dir_fd=self.folder(folder))
        return True


def copy_xattrs(real: str) -> list[tuple[str, bytes]]:
    """Extended attributes of a file in a layer, without overlayfs's."""
    names = os.listxattr(real, follow_symlinks=False)
    return [
        (name, os.getxattr(real, name, follow_symlinks=False))
        for name in names
        if not name.startswith(_OVERLAY_XATTRS)
    ]


def copy_entry(real: str, status: os.stat_result, tree: Tree, path: str) -> None:
    """Copy a file, link or node of a layer (not a folder) to `path`, with attributes and times."""
    kind = stat.S_IFMT(status.st_mode)
    mode: int | None = stat.S_IMODE(status.st_mode)
    if kind == stat.S_IFREG:
        _copy_file(real, status.st_size, tree.create(path))
    elif kind == stat.S_IFLNK:
        tree.symlink(os.readlink(real), path)
        mode = None
    elif kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, "cannot be copied as a file", real)
    else:
        tree.make_node(path, status.st_mode, status.st_rdev)
    tree.dress(path, uid=status.st_uid, gid=status.st_gid, mode=mode, xattrs=copy_xattrs(real))
    tree.set_time(path, status.st_mtime_ns)


def split(path: str) -> tuple[str, str]:
    parent, _, name = path.rpartition("/")
    return parent, name


def _copy_file(real: str, size: int, target: int) -> None:
    try:
        source = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            while size > 0 and (copied := _copy_some(source, target, size)):
                size -= copied
        finally:
            os.close(source)
    finally:
        os.close(target)


def _copy_some(source: int, target: int, size: int) -> int:
    """A reflink if the file system supports it, else a copy in the kernel; both use the file offsets."""
    try:
        return os.copy_file_range(source, target, size)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return os.sendfile(target, source, None, size)  # None: the file's own offset


def _entries(fd: int) -> list[os.DirEntry[str]]:
    with os.scandir(fd) as entries:
        return list(entries)

"""SELinux labels of files: of one, or of all files of a volume (selinux_relabel)."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from phantom_cri.errors import InvalidArgument, ResourceExhausted, kernel_error

_ATTRIBUTE = "security.selinux"
_DEEPEST = 256
"""Most levels of folders: each needs a file descriptor while its content is labelled."""

_TOP = "bin boot dev etc home lib lib64 media mnt opt proc root run sbin srv sys tmp usr var"
_BELOW = "etc/passwd etc/pki etc/shadow usr/bin usr/lib usr/lib64 usr/sbin usr/share var/lib var/log var/tmp"
_OF_THE_HOST = frozenset({"/"} | {f"/{path}" for path in f"{_TOP} {_BELOW}".split()})
_OF_THE_KERNEL = ("/proc/", "/sys/", "/dev/")


def label(file: int | str, context: str) -> None:
    """Does nothing if the file system has no labels (NFS), as its mount has one. Raises Internal.

    `file`: an fd, also with O_PATH, or a path, following links.
    """
    path = f"/proc/self/fd/{file}" if isinstance(file, int) else file
    try:
        os.setxattr(path, _ATTRIBUTE, context.encode() + b"\0")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            shown = os.readlink(path) if isinstance(file, int) else file
            raise kernel_error(f"label {shown} {context}", error.errno or errno.EIO) from error


def label_of(file: int | str) -> str:
    """ "" where it has none."""
    path = f"/proc/self/fd/{file}" if isinstance(file, int) else file
    try:
        return os.getxattr(path, _ATTRIBUTE).rstrip(b"\0").decode(errors="replace")
    except OSError:
        return ""


def relabel(path: str, context: str, field: str) -> None:
    """Label all files below `path`, then `path` itself: if it has the label, all files have it.

    Never follows links below `path`, even during concurrent changes. May take long: a system call or two for
    each file. Raises InvalidArgument naming `field` for a system path of the host, ResourceExhausted,
    Internal.
    """
    try:
        top = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise kernel_error(f"{field}: open {path}", error.errno or errno.EIO) from error
    try:
        found = os.readlink(f"/proc/self/fd/{top}")
        if found in _OF_THE_HOST or (found + "/").startswith(_OF_THE_KERNEL):
            raise InvalidArgument(f"{field}: {found} belongs to the host and gets no label of a container")
        if label_of(top) == context:
            return
        if stat.S_ISDIR(os.fstat(top).st_mode):
            _label_below(top, context, field)
        label(top, context)
    finally:
        os.close(top)


def _label_below(top: int, context: str, field: str) -> None:
    """Depth first, each folder before its content: new files inherit its label."""
    open_folders = [_entries(top, ".")]
    try:
        while open_folders:
            folder, names = open_folders[-1]
            name = next(names, None)
            if name is None:
                os.close(open_folders.pop()[0])
                continue
            below = _label_entry(folder, name, context)
            if below is None:
                continue
            open_folders.append(below)
            if len(open_folders) > _DEEPEST:
                where = os.readlink(f"/proc/self/fd/{folder}")
                raise ResourceExhausted(f"{field}: {where} is more than {_DEEPEST} folders deep")
    finally:
        for folder, _ in open_folders:
            os.close(folder)


def _label_entry(folder: int, name: str, context: str) -> tuple[int, Iterator[str]] | None:
    """A folder's fd and names; None for other files, or if it was removed."""
    try:
        entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        if label_of(entry) != context:
            label(entry, context)
        return _entries(entry, ".") if stat.S_ISDIR(os.fstat(entry).st_mode) else None
    finally:
        os.close(entry)


def _entries(at: int, name: str) -> tuple[int, Iterator[str]]:
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    try:
        return folder, iter(os.listdir(folder))
    except BaseException:
        os.close(folder)
        raise

"""Checks of paths in requests. They are only resolved in C, in the container's root."""

from __future__ import annotations

import os

from phantom_cri.errors import InvalidArgument

PATH_MAX = 4095  # bytes without the NUL (linux/limits.h)


def clean(path: str, field: str) -> str:
    """A path in a container: `//a/./b/../c/` → `/a/c`; ".." stops at the root, as with runc.

    Raises InvalidArgument as `host_path`.
    """
    # normpath keeps two leading slashes (POSIX leaves their meaning open).
    return os.path.normpath("/" + host_path(path, field).lstrip("/"))


def host_path(path: str, field: str) -> str:
    """A path on the node, unchanged: only the kernel can resolve ".." after a symbolic link.

    Raises InvalidArgument naming `field` if it is relative, too long or has a NUL byte.
    """
    if not path.startswith("/"):
        raise InvalidArgument(f"{field}: {path!r} is not an absolute path")
    if "\0" in path:
        raise InvalidArgument(f"{field}: {path!r} has a NUL byte")
    if len(path.encode("utf-8", "surrogateescape")) > PATH_MAX:
        raise InvalidArgument(f"{field}: longer than {PATH_MAX} bytes: {path[:60]!r}…")
    return path


def depth(path: str) -> int:
    """Number of components of a cleaned path; 0 for the root."""
    return 0 if path == "/" else path.count("/")


def covers(above: str, path: str) -> bool:
    """Whether `path` is `above` or below it; both cleaned."""
    return path == above or above == "/" or path.startswith(above + "/")

"""Paths as requests give them. What they lead to is decided in the container's root, and by C alone."""

from __future__ import annotations

from phantom_cri.errors import InvalidArgument

PATH_MAX = 4095  # bytes without the NUL (linux/limits.h)


def clean(path: str, field: str) -> str:
    """`//a/./b/` → `/a/b`. Raises InvalidArgument naming `field` if relative, too long, with ".." or NUL."""
    if not path.startswith("/"):
        raise InvalidArgument(f"{field}: {path!r} is not an absolute path")
    if "\0" in path:
        raise InvalidArgument(f"{field}: {path!r} has a NUL byte")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidArgument(f'{field}: {path!r} has a ".."')
    cleaned = "/" + "/".join(parts)
    if len(cleaned.encode("utf-8", "surrogateescape")) > PATH_MAX:
        raise InvalidArgument(f"{field}: a path of more than {PATH_MAX} bytes: {path[:60]!r}…")
    return cleaned


def depth(path: str) -> int:
    """Number of components of a cleaned path; 0 for the root."""
    return 0 if path == "/" else path.count("/")


def covers(above: str, path: str) -> bool:
    """Whether `path` is `above` or below it; both cleaned."""
    return path == above or above == "/" or path.startswith(above + "/")

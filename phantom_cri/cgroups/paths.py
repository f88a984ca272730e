"""Cgroup paths as the kubelet gives them, checked once and made relative to a hierarchy's root."""

from __future__ import annotations

import re

from phantom_cri.errors import InvalidArgument

DEFAULT_PARENT = "/phantom"
"""The parent for pods without cgroup_parent (crictl); the kubelet always sets it."""

# A newline in a name would forge lines of /proc/PID/cgroup; other control characters would forge log lines.
_PATH = re.compile(r"/?[^\x00-\x1f\x7f/]{1,255}(?:/[^\x00-\x1f\x7f/]{1,255})*/?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_LONGEST = 1024


def pod_path(cgroup_parent: str, member_id: str) -> str:
    """The cgroup of one sandbox or container below the pod's `cgroup_parent` (empty: DEFAULT_PARENT).

    Raises InvalidArgument for a parent or an id that is not a plain name.
    """
    return f"/{relative(cgroup_parent or DEFAULT_PARENT)}/{member_name(member_id)}"


def member_name(member_id: str) -> str:
    if not _NAME.fullmatch(member_id):
        raise InvalidArgument(f"cgroup name {member_id!r}: want letters, digits, '_', '.', '-'")
    return member_id


def relative(path: str) -> str:
    """`/kubepods/pod1/` → `kubepods/pod1`. InvalidArgument for the root, `.`, `..`, control characters."""
    if len(path) > _LONGEST or not _PATH.fullmatch(path):
        raise InvalidArgument(f"cgroup path {path!r}: want /name/name, no empty names or control characters")
    name = path.strip("/")
    if "." in name and not {".", ".."}.isdisjoint(name.split("/")):
        raise InvalidArgument(f"cgroup path {path!r}: '.' and '..' are not allowed")
    return name


def exec_name(exec_id: str) -> str:
    """The name of an exec's child cgroup, prefixed to avoid a clash with the container's own cgroups."""
    if not _NAME.fullmatch(exec_id):
        raise InvalidArgument(f"exec id {exec_id!r}: want letters, digits, '_', '.', '-'")
    return f"exec-{exec_id}"


def parents(name: str) -> list[str]:
    """`a/b/c` → [`a`, `a/b`]: what has to exist before the last part, outermost first."""
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]

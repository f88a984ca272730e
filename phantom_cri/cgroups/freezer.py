"""Freezing and thawing all processes of a cgroup, which they cannot notice.

Sources: Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst, cgroup-v2.rst (cgroup.freeze, since 5.2).
"""

from __future__ import annotations

import errno
import time
from typing import NamedTuple

from phantom_cri.cgroups.paths import relative
from phantom_cri.cgroups.processes import deadline_after
from phantom_cri.cgroups.tree import Tree
from phantom_cri.errors import DeadlineExceeded, NotFound, kernel_error

_POLL_S = 0.005


class _Words(NamedTuple):
    file: str
    freeze: str
    thaw: str
    state_file: str
    frozen: str


_V1 = _Words("freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN\n")
_V2 = _Words("cgroup.freeze", "1", "0", "cgroup.events", "frozen 1\n")


class Freezer:
    """Uses v1's freezer hierarchy, or a v2 one."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._words = _V1 if "freezer" in tree.controllers else _V2

    def folder(self, path: str) -> str:
        """The cgroup's folder in the file system."""
        return f"{self._tree.root}/{relative(path)}"

    def freeze(self, path: str, timeout_s: float) -> None:
        """Returns when every process in `path` and below has stopped. Raises NotFound, DeadlineExceeded.

        A process that waits in the kernel for a dead file server never stops; then all are thawed again.
        """
        name, deadline = relative(path), deadline_after(timeout_s)
        try:
            self._tree.write(name, self._words.file, self._words.freeze)
            while self._words.frozen not in self._tree.read(name, self._words.state_file):
                if time.monotonic() >= deadline:
                    raise DeadlineExceeded(f"cgroup {path}: freeze: not done after {timeout_s:.0f} s")
                time.sleep(_POLL_S)
        except FileNotFoundError as error:
            raise NotFound(f"cgroup {path}: there is none") from error
        except OSError as error:
            raise kernel_error(f"cgroup {path}: freeze", error.errno or 0) from error
        except DeadlineExceeded:
            self.thaw(path)
            raise

    def thaw(self, path: str) -> None:
        """Idempotent; a missing path is no error."""
        try:
            self._tree.write(relative(path), self._words.file, self._words.thaw)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise kernel_error(f"cgroup {path}: thaw", error.errno or 0) from error

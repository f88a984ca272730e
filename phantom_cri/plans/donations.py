"""Owns the fds that are sent with a plan, by name.

A plan only has names ("log", "cgroup.procs"); opened files are given to the `Donations` of that launch, which
closes them when the launch is over, also after an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from types import TracebackType

from phantom_cri.errors import Internal


class Donations:
    """Use as a context manager: on exit, fds that were given are closed, those that were lent are not."""

    def __init__(self) -> None:
        self._fds: dict[str, int] = {}
        self._owned: list[int] = []

    def give(self, name: str, fd: int) -> int:
        """Take ownership of `fd`: closed with this object, also if the name is in use (Internal)."""
        self._owned.append(fd)
        return self.lend(name, fd)

    def lend(self, name: str, fd: int) -> int:
        """Send `fd` without taking ownership: the caller keeps it open until the launch is over."""
        if name in self._fds:
            raise Internal(f"fd {name!r} donated twice")
        self._fds[name] = fd
        return fd

    def open(self, name: str, path: str, mode: int, permissions: int = 0o640) -> int:
        """Open a file and take ownership. Always O_CLOEXEC. Raises OSError."""
        return self.give(name, os.open(path, mode | os.O_CLOEXEC, permissions))

    def in_order(self, names: Iterable[str]) -> list[int]:
        """The fds for the slots of a plan. Raises Internal naming what is missing."""
        try:
            return [self._fds[name] for name in names]
        except KeyError as missing:
            raise Internal(f"the plan needs fd {missing}, donated are {sorted(self._fds)}") from None

    def names(self) -> Sequence[str]:
        return tuple(self._fds)

    def close(self) -> None:
        while self._owned:
            os.close(self._owned.pop())
        self._fds.clear()

    def __enter__(self) -> Donations:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

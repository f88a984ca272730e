"""Fds that must stay open whatever becomes of this daemon: the fragment of their pod has them too."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable

from phantom_cri.concurrency import Background
from phantom_cri.errors import NotFound, PhantomError
from phantom_cri.fragments.handle import FragmentHandle

log = logging.getLogger(__name__)

_asked = Background()


def keep(fragment: FragmentHandle, name: str, fd: int = -1) -> None:
    """Have the fragment keep an fd, or drop it (-1), before anything that it is asked later."""
    if not fragment.alive():
        return
    try:
        _asked.start(_note_failure(name, fragment.client.keep(name, fd)))
    except PhantomError as error:
        log.warning("%s does not outlive this daemon: %s", name, error)


async def _note_failure(name: str, answer: Awaitable[object]) -> None:
    try:
        await answer
    except PhantomError as error:
        log.warning("%s does not outlive this daemon: %s", name, error)


class Kept:
    """Owns `fd`, which is kept under `name` until it is closed."""

    def __init__(self, fragment: FragmentHandle, name: str, fd: int, *, again: bool = False) -> None:
        """again: it is kept already."""
        self.fd = fd
        self._fragment, self._name = fragment, name
        if not again:
            keep(fragment, name, fd)

    def close(self) -> None:
        """Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            keep(self._fragment, self._name)


async def kept(fragment: FragmentHandle, name: str) -> Kept | None:
    """What an earlier daemon has left under `name`."""
    try:
        return Kept(fragment, name, await fragment.client.kept(name), again=True)
    except NotFound:
        return None

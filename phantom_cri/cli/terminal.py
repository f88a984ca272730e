"""The user's terminal: passed to a container byte by byte, and always restored afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DETACH_KEYS = b"\x10\x11"
"""Ctrl-P Ctrl-Q, as in docker."""


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """Every key is sent to the container, including Ctrl-C, without echo or translation."""
    saved = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, saved)


def size(fd: int) -> tuple[int, int]:
    """Width and height in characters."""
    found = os.get_terminal_size(fd)
    return found.columns, found.lines


@contextmanager
def on_resize(call: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, call)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


class DetachKeys:
    """Detects the keys for detaching, also if they arrive one by one."""

    def __init__(self) -> None:
        self._seen = 0

    def pass_on(self, typed: bytes) -> tuple[bytes, bool]:
        """The part of `typed` for the container, and whether the user has detached."""
        passed = bytearray()
        for key in typed:
            if key == DETACH_KEYS[self._seen]:
                self._seen += 1
                if self._seen == len(DETACH_KEYS):
                    return bytes(passed), True
                continue
            passed += DETACH_KEYS[: self._seen]
            self._seen = int(key == DETACH_KEYS[0])
            if not self._seen:
                passed.append(key)
        return bytes(passed), False

"""Streams that wait for their client: each URL can be used once, and for a short time."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine
from typing import NamedTuple

from phantom_cri.errors import ResourceExhausted
from phantom_cri.streaming.session import Dial, OpenSession

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
"""Channels of exec and attach, numbered as in the WebSocket protocols."""

LIFETIME_S = 60.0
MAX_WAITING = 1000

Spawn = Callable[[Coroutine[None, None, None]], asyncio.Task[None]]
"""Starts background work that the server waits for when it is closed."""


class Settings(NamedTuple):
    """Settings of all connections of a server."""

    spawn: Spawn
    creation_timeout_s: float


class PendingStdio(NamedTuple):
    """An exec or attach, as requested by CRI."""

    open_session: OpenSession
    tty: bool
    stdin: bool
    stdout: bool
    stderr: bool
    attach: bool

    @property
    def outputs(self) -> list[int]:
        """The output channels; a terminal has only one."""
        asked = {STDOUT: self.stdout, STDERR: self.stderr and not self.tty}
        return [channel for channel, wanted in asked.items() if wanted]


class PendingForward(NamedTuple):
    dial: Dial
    ports: tuple[int, ...]
    pod_label: str


PendingStream = PendingStdio | PendingForward


class PendingStreams:
    """Streams that wait for their client, under unguessable tokens."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[float, PendingStream]] = {}  # in the order in which they expire

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, path: str, pending: PendingStream) -> str:
        """Returns its URL path. Raises ResourceExhausted."""
        self._forget_expired()
        if len(self._waiting) >= MAX_WAITING:
            raise ResourceExhausted(f"streaming: limit reached, {MAX_WAITING} URLs are not used yet")
        whole = f"/{path}/{secrets.token_urlsafe(16)}"
        self._waiting[whole] = time.monotonic() + LIFETIME_S, pending
        return whole

    def take(self, path: str) -> PendingStream | None:
        """None for a path that is unknown, used, or expired."""
        self._forget_expired()
        found = self._waiting.pop(path, None)
        return found[1] if found else None

    def _forget_expired(self) -> None:
        now = time.monotonic()
        while self._waiting:
            path, (expires, _) = next(iter(self._waiting.items()))
            if expires > now:
                break
            del self._waiting[path]

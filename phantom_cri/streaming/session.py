"""The interface to containers: a running session's descriptors and its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol


class Session(Protocol):
    """An exec's process, or a container that a client is attached to.

    Descriptors are non-blocking, and -1 for streams that were not requested. The session owns them: `close`
    closes those still open. With a terminal `stdin` and `stdout` are its master and `stderr` is -1.
    """

    stdin: int
    stdout: int
    stderr: int
    is_lossy: bool
    """Whether the writer of the outputs never waits: they are read at once and buffered for slow clients."""

    def resize(self, width: int, height: int) -> None:
        """New size of the terminal, in characters; ignored without one."""
        ...

    def end_input(self) -> None:
        """The client's input has ended."""
        ...

    async def wait(self) -> int:
        """Wait for the end of the process, or of the attach; returns its exit code (128 + signal if killed).

        Afterwards only output that can be read without waiting is used: a remaining child may keep stdout and
        stderr open. Raises PhantomError.
        """
        ...

    async def close(self) -> None:
        """The session is over: kills an exec's processes, but not a container's."""
        ...


OpenSession = Callable[[], Awaitable[Session]]
"""Starts the exec, or attaches; called when the client has created all its streams. Raises PhantomError."""

Dial = Callable[[int], Awaitable[int]]
"""Port number → a connected, non-blocking TCP socket's fd inside the pod, owned by the caller.

Raises PhantomError with the reason.
"""

"""What this room asks of those who know containers: a running session's descriptors and its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol


class Session(Protocol):
    """An exec's process, or a container that a client is attached to.

    Descriptors are non-blocking and -1 where the stream was not asked for. They belong to the session:
    `close` closes what is still open. With a terminal `stdin` and `stdout` lead to it and `stderr` is -1.
    """

    stdin: int
    stdout: int
    stderr: int
    is_lossy: bool
    """Who writes the outputs never waits: they are read at once, and kept for a client that is slow."""

    def resize(self, width: int, height: int) -> None:
        """New size of the terminal, in characters; of no effect without one."""
        ...

    def end_input(self) -> None:
        """The client's input has ended."""
        ...

    async def wait(self) -> int:
        """Until the process has ended, or the attach: its exit code (128 + signal when killed).

        What can be read from stdout and stderr then without waiting is all that there is: a child left behind
        may hold them open for ever. Raises PhantomError.
        """
        ...

    async def close(self) -> None:
        """The client is gone or served: kills an exec's processes, leaves a container running."""
        ...


OpenSession = Callable[[], Awaitable[Session]]
"""Starts the exec, or attaches; called once all of the client's streams are there. Raises PhantomError."""

Dial = Callable[[int], Awaitable[int]]
"""Port number → a connected, non-blocking TCP socket's fd inside the pod, owned by the caller.

Raises PhantomError saying why not.
"""

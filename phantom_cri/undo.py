"""Cleanup on failure: each acquired resource pushes a described undo.

    async with Undo("run pod sandbox") as undo:
        cgroups.create(path)
        undo.push("cgroup", lambda: cgroups.remove(path))
        ...
        undo.keep()      # success: nothing is undone

If the block is left without `keep()`, by an error or cancellation, the undos run last first, each even if
another one failed, shielded from further cancellation. An OSError is converted to a PhantomError here.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType

from phantom_cri.concurrency import to_the_end
from phantom_cri.errors import Internal, kernel_error

log = logging.getLogger(__name__)

Action = Callable[[], Awaitable[object] | object]


class Undo:
    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._actions: list[tuple[str, Action]] = []

    def push(self, what: str, action: Action) -> None:
        """`what` names the acquired resource in the log if its undo fails."""
        self._actions.append((what, action))

    def take_over(self, what: str, by: str, action: Action) -> None:
        """Replace the last undo, `what`: it is now part of `by`, which `action` releases as a whole."""
        taken, _ = self._actions.pop()
        if taken != what:
            raise Internal(f"{self._verb}: {what} was not acquired last, but {taken}")
        self.push(by, action)

    def keep(self) -> None:
        self._actions.clear()

    async def __aenter__(self) -> Undo:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._actions:
            await to_the_end(self._run())
        if isinstance(error, OSError):
            where = f" {error.filename}" if isinstance(error.filename, str) else ""
            raise kernel_error(f"{self._verb}{where}", error.errno or 0) from error

    async def _run(self) -> None:
        while self._actions:
            what, action = self._actions.pop()
            try:
                result = action()
                if inspect.isawaitable(result):
                    await result
            except Exception:  # the remaining undos must still run
                log.exception("%s: failed to clean up %s", self._verb, what)

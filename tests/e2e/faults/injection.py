"""Makes one call on the way of a verb fail, whichever call it is.

Nobody lists the calls: every function of `os` that is not named in `HARMLESS`, every method of the rooms
that a node is composed of, and every function that the rooms export is wrapped. A first run of a verb counts
which of them it passes; then the verb is run once for each, and that one fails. So a new acquire is tested
without anybody thinking of it.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import contextvars
import dataclasses
import errno
import fcntl
import inspect
import io
import os
import socket
import sys
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

from phantom_cri import fragments, images, native, plans, requests
from phantom_cri.cgroups.freezer import Freezer
from phantom_cri.errors import Internal
from phantom_cri.images import trash
from phantom_cri.lifecycle.events import Reader
from phantom_cri.lifecycle.runtime import Runtime
from phantom_cri.network import identity

T = TypeVar("T")

# What gives back, only asks, or cannot fail: a fault there is no failed acquire.
HARMLESS = frozenset(
    """close unlink remove rmdir kill waitid waitpid waitstatus_to_exitcode
    stat lstat fstat statvfs access listdir scandir readlink getxattr listxattr lseek get_blocking fsync
    getpid getppid getuid geteuid getgid getegid umask uname urandom getrandom getcwd fspath
    major minor makedev cpu_count sched_getaffinity""".split()  # noqa: SIM905
)
NEVER_FAILS = ("Events.emit", "fragments.moved_up", "requests.warn_unsupported")
"""Ours that nobody has to expect an error of: what they are made of is wired instead."""
SOCKET_CALLS = ("bind", "connect", "listen", "sendmsg", "send", "recv")
OURS = str(Path(native.__file__).parents[1])
PASSED_THROUGH = tuple(
    str(Path(os.__file__).with_name(f"{name}.py"))
    for name in ("os", "pathlib", "shutil", "tarfile", "tempfile")
)
_NEW_FD = frozenset("open pipe2 pipe memfd_create dup dup2 pidfd_open socket".split())  # noqa: SIM905
_NEW_SPACE = frozenset("write pwrite mkdir rename replace symlink link mknod ftruncate".split())  # noqa: SIM905

Point = tuple[str, int]
"""A call on the way: what is called and from where, and the how-manyeth such call it is."""


class Faults:
    """Counts the calls of one run, and makes the one at `target` fail with what `failure(name)` gives."""

    def __init__(
        self, target: Point | None = None, failure: Callable[[str], BaseException] | None = None
    ) -> None:
        self.target, self.failure = target, failure or usual_failure
        self.points: list[Point] = []
        self.fired: BaseException | None = None
        self.active = True
        self._counts: Counter[str] = Counter()

    def reached(self, name: str, where: str) -> BaseException | None:
        """The error that this call fails with, if it is the one."""
        if not self.active or self.fired is not None:
            return None
        said = f"{name} in {where}"
        self._counts[said] += 1
        point = (said, self._counts[said])
        self.points.append(point)
        if point != self.target:
            return None
        self.fired = self.failure(name)
        return self.fired


_armed: contextvars.ContextVar[Faults | None] = contextvars.ContextVar("faults", default=None)
"""Of the verb under test: its tasks and threads inherit it, what else the loop does has none."""


@contextlib.contextmanager
def armed(faults: Faults) -> Iterator[Faults]:
    token = _armed.set(faults)
    try:
        yield faults
    finally:
        faults.active = False
        _armed.reset(token)


def usual_failure(name: str) -> BaseException:
    """What this call most likely fails with in real life."""
    kind, _, call = name.partition(".")
    if kind not in ("os", "io", "socket", "fcntl", "native"):
        return Internal(f"injected into {name}")
    if call in _NEW_FD:
        return os_error(errno.EMFILE)
    if call in _NEW_SPACE:
        return os_error(errno.ENOSPC)
    return os_error(errno.EAGAIN if kind == "native" else errno.EACCES)


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number), "injected")


@contextlib.contextmanager
def wired(runtime: Runtime, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Wrap every call that may fail; without `armed` all of them do what they always do."""
    with contextlib.ExitStack() as undo:

        def put(owner: Any, name: str, wrapper: Any) -> None:
            own = name in vars(owner)
            before = getattr(owner, name)
            setattr(owner, name, wrapper)
            undo.callback(lambda: setattr(owner, name, before) if own else delattr(owner, name))

        for owner, name, label in (*system_calls(), *room_calls(runtime)):
            put(owner, name, _wrapped(getattr(owner, name), label))
        put(loop, "run_in_executor", _carrying(loop.run_in_executor))
        yield


def system_calls() -> Iterator[tuple[Any, str, str]]:
    """(owner, attribute, label) of what can fail with an errno."""
    for name, function in list(vars(os).items()):
        is_call = isinstance(function, types.BuiltinFunctionType) and function.__module__ == "posix"
        if is_call and name not in HARMLESS and not name.startswith(("W", "_")):
            yield os, name, f"os.{name}"
    for name in SOCKET_CALLS:
        yield socket.socket, name, f"socket.{name}"
    yield builtins, "open", "io.open"
    yield io, "open", "io.open"
    yield fcntl, "fcntl", "fcntl.fcntl"
    yield native, "spawn", "native.spawn"
    yield asyncio, "create_subprocess_exec", "native.create_subprocess_exec"


def room_calls(runtime: Runtime) -> Iterator[tuple[Any, str, str]]:
    """Every public method of the rooms' objects, and every function that they export."""
    rooms = [getattr(runtime, field.name) for field in dataclasses.fields(runtime)]
    classes = {type(room) for room in rooms if _has_behaviour(type(room))}
    classes |= {fragments.FragmentClient, Freezer, Reader}
    for owner in sorted(classes, key=lambda one: one.__name__):
        for name in dir(owner):
            function = inspect.getattr_static(owner, name)
            said = f"{owner.__name__}.{name}"
            if (
                not name.startswith("_")
                and isinstance(function, types.FunctionType)
                and said not in NEVER_FAILS
            ):
                yield owner, name, said
    for module in (fragments, plans, requests, images, identity):
        for name, function in list(vars(module).items()):
            is_ours = isinstance(function, types.FunctionType) and function.__module__.startswith(
                "phantom_cri"
            )
            said = f"{module.__name__.rpartition('.')[2]}.{name}"
            if is_ours and not name.startswith("_") and said not in NEVER_FAILS:
                yield module, name, said


def _has_behaviour(kind: type) -> bool:
    return kind.__module__.startswith("phantom_cri") and not kind.__module__.endswith(
        ("config", "metrics", "base")
    )


def _wrapped(original: Callable[..., Any], label: str) -> Callable[..., Any]:
    def fail() -> None:
        faults = _armed.get()
        if faults is not None and (where := _caller(sys._getframe(2))):
            error = faults.reached(label, where)
            if error is not None:
                raise error

    if inspect.iscoroutinefunction(original):

        async def wait(*args: Any, **kwargs: Any) -> Any:
            fail()
            return await original(*args, **kwargs)

        return wait

    def call(*args: Any, **kwargs: Any) -> Any:
        fail()
        return original(*args, **kwargs)

    return call


def _caller(frame: types.FrameType | None) -> str:
    """Which function of ours makes this call, be it through os.makedirs or pathlib; "" for others' calls."""
    while frame is not None and frame.f_code.co_filename.startswith(PASSED_THROUGH):
        frame = frame.f_back
    if frame is None or not frame.f_code.co_filename.startswith(OURS):
        return ""
    if frame.f_code.co_filename == trash.__file__:  # it gives back
        return ""
    return f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"


def _carrying(original: Callable[..., Any]) -> Callable[..., Any]:
    def run_in_executor(executor: Any, work: Callable[..., Any], *args: Any) -> Any:
        return original(executor, contextvars.copy_context().run, work, *args)

    return run_in_executor


class Cancelled:
    """Awaits `work` and cancels the task that does so at its `number`th await (from 1; 0: never).

    late: not while it waits, but when what it waits for has happened and it was not told yet.
    """

    def __init__(self, work: Awaitable[T], number: int, *, late: bool) -> None:
        self._work, self._number, self._late = work, number, late
        self.awaits = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._work.__await__()
        thrown: BaseException | None = None
        while True:
            try:
                waited = steps.send(None) if thrown is None else steps.throw(thrown)
            except StopIteration as stop:
                return stop.value
            self.awaits += 1
            if self.awaits == self._number:
                self._cancel(waited)
            thrown = None
            try:
                yield waited
            except BaseException as error:
                thrown = error

    def _cancel(self, waited: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._late and waited is not None:
            waited.add_done_callback(lambda _: task.cancel())
        else:
            task.cancel()

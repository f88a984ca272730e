"""The daemon's side of a fragment's socket (native/protocol.h).

There is no task per message: a request is a future, found by its serial. Events go to one callback.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from phantom_cri.codec import Record
from phantom_cri.errors import SHORTAGES, DataLoss, FailedPrecondition, PhantomError, kernel_error
from phantom_cri.fragments.connection import Connection, connected
from phantom_cri.fragments.failure import FragmentLost, refusal
from phantom_cri.fragments.features import (
    Feature,
    Hello,
    Kind,
    OtherVersion,
    is_lacking,
    read_hello,
    unknown_in,
)
from phantom_cri.fragments.message import (
    AdoptFlag,
    AttachFlag,
    Exit,
    Message,
    SignalFlag,
    State,
    Type,
    pack,
    unpack,
)
from phantom_cri.fragments.plan_log import log_plan
from phantom_cri.fragments.processes import Started, identify
from phantom_cri.fragments.statistics import FragmentStatistics
from phantom_cri.plans import constants
from phantom_cri.plans.donations import Donations
from phantom_cri.plans.op import Op
from phantom_cri.plans.plan import Plan, sealed

_VERBS = {
    Type.HELLO: "hello",
    Type.ADOPT: "adopt",
    Type.START: "start",
    Type.GO: "start",
    Type.SIGNAL: "signal",
    Type.REOPEN: "reopen the log of",
    Type.LIST: "list",
    Type.GET: "get",
    Type.FORGET: "forget",
    Type.SHUTDOWN: "shut down",
    Type.CLOSE_STDIN: "close stdin of",
    Type.ATTACH: "attach to",
    Type.SOCKET: "make a socket",
    Type.KEEP: "keep",
    Type.KEPT: "give back",
}


class Exited(Record, frozen=True):
    """A process ended. `kind`: KIND_CONTAINER or KIND_EXEC."""

    process_id: str
    kind: int
    exit: Exit


class Resync(Record, frozen=True):
    """Events were lost because the daemon was too slow: call `list_processes`."""


class Lost(Record, frozen=True):
    """The connection is closed, most likely because the fragment has died. The last event."""


Event = Exited | Resync | Lost


class Entry(NamedTuple):
    """A process in the fragment. The caller owns the fds (-1: none); `pid` is in the fragment's namespace."""

    process_id: str
    kind: int
    state: State
    pid: int
    exit: Exit
    pidfd: int = -1
    console: int = -1


class Attached(NamedTuple):
    """A client of a process's output. The caller owns the console (-1: none).

    detached: done when the pipes are closed, with False if the client was too slow; or fails with
    FragmentLost.
    """

    console: int
    detached: asyncio.Future[bool]


class _Request:
    """A request that waits for its answer; what was requested is kept for error messages."""

    __slots__ = ("done", "entries", "fds", "plan", "process_id", "type")

    def __init__(self, type: Type, process_id: str, plan: Plan | None, done: asyncio.Future[Message]) -> None:
        self.type = type
        self.process_id = process_id
        self.plan = plan
        self.done = done
        self.entries: list[Entry] = []
        self.fds: list[int] = []

    def discard(self) -> None:
        """Close fds that were received for a caller that is gone."""
        for fd in (*self.fds, *[fd for entry in self.entries for fd in (entry.pidfd, entry.console)]):
            if fd >= 0:
                os.close(fd)


class FragmentClient:
    """A connection to one fragment, used in one event loop. Requests raise FragmentLost when it is closed.

    A cancelled request is still executed by the fragment; its answer is dropped.
    """

    def __init__(self, peer: socket.socket, on_event: Callable[[Event], None], sandbox_id: str = "") -> None:
        """Takes over a connected, non-blocking socket. `sandbox_id`: for the log."""
        self._sandbox_id = sandbox_id
        self._loop = asyncio.get_running_loop()
        self._connection = Connection(peer, constants.PACKET_MAX, self._packet, self._lost)
        self._on_event = on_event
        self._serial = 0
        self._waiting: dict[int, _Request] = {}
        self._attached: dict[int, asyncio.Future[bool]] = {}
        self._end = "the fragment is gone"
        self._version = constants.VERSION_NEWEST
        self._lacks: Mapping[Feature, int] = {}
        self._other_version = ""

    @classmethod
    def connect(cls, path: str, on_event: Callable[[Event], None], sandbox_id: str = "") -> FragmentClient:
        """Connect to the socket at `path`.

        Raises FragmentLost, or ResourceExhausted when this process has no fd left.
        """
        try:
            return cls(connected(path), on_event, sandbox_id)
        except OSError as error:
            if error.errno in SHORTAGES:
                raise kernel_error(f"connect to {path}", error.errno or 0) from error
            raise FragmentLost(f"connect to {path}: {error.strerror}") from error

    async def hello(self) -> Hello:
        """Subscribe to events, and get the fragment's versions and features.

        Raises OtherVersion; then every later request except `shutdown` raises it too.
        """
        request = self._send(Type.HELLO, "", value=constants.VERSION_OLDEST, value2=constants.VERSION_NEWEST)
        answer = await self._answer(request)
        try:
            hello = read_hello(answer.text)
        except OtherVersion as error:
            self._other_version = str(error)
            raise
        self._version, self._lacks = hello.version, hello.lacks
        return hello

    def knows(self, op: type[Op], flags: int = 0) -> bool:
        """Whether this fragment supports the op with these flags."""
        return not is_lacking(self._lacks, (Kind.OP, op.number), flags)

    def statistics(self) -> FragmentStatistics:
        connection = self._connection
        return FragmentStatistics(
            connections=int(connection.is_open),
            requests=len(self._waiting),
            unsent=connection.unsent,
            attached=len(self._attached),
            execs=0,
            early_exits=0,
        )

    async def adopt(self, plan: Plan, donations: Donations | None = None, *, claim: bool = False) -> None:
        """Run a plan in the fragment itself; `claim`: a warm fragment becomes a pod's. Raises LaunchError."""
        await self._answer(self._send_plan(Type.ADOPT, "", plan, donations, AdoptFlag.CLAIM if claim else 0))

    async def start(self, process_id: str, plan: Plan, donations: Donations | None = None) -> Started:
        """Start a process; returns once its execve succeeded. Raises LaunchError, AlreadyExists."""
        return await self._started(self._send_plan(Type.START, process_id, plan, donations))

    async def prepare(self, process_id: str, plan: Plan, donations: Donations | None = None) -> Started:
        """As `start` with a plan with HOLD: the process waits for `go` right before its execve."""
        return await self._started(self._send_plan(Type.START, process_id, plan, donations))

    async def go(self, process_id: str, plan: Plan | None) -> Started:
        """Let a prepared process execve; `plan`: as it was prepared with. Raises LaunchError, NotFound."""
        return await self._started(self._send(Type.GO, process_id, plan=plan))

    async def _started(self, request: _Request) -> Started:
        answer = await self._answer(request)
        if not request.fds:
            raise DataLoss(f"start {request.process_id}: the fragment sent no pidfd")
        pidfd, console = (*request.fds, -1)[:2]
        try:
            return Started(identify(pidfd), pidfd, console, answer.exit.started_at)
        except BaseException:
            request.discard()
            raise

    async def signal(self, process_id: str, number: int, *, all_processes: bool = False) -> None:
        """Signal the first process, or all processes of its cgroup. Raises NotFound when it has ended."""
        flags = SignalFlag.ALL if all_processes else 0
        await self._ask(Type.SIGNAL, process_id, flags=flags, value=number)

    async def reopen_log(self, process_id: str, fd: int) -> None:
        """Switch the log to `fd`, which the caller still has to close. Raises NotFound."""
        await self._ask(Type.REOPEN, process_id, fds=[fd])

    async def close_stdin(self, process_id: str) -> None:
        """Close the fragment's end of a stdin pipe: end of file once no other writer is left."""
        await self._ask(Type.CLOSE_STDIN, process_id)

    async def attach(
        self,
        process_id: str,
        *,
        stdout: int = -1,
        stderr: int = -1,
        console: bool = False,
        once: bool = False,
    ) -> Attached:
        """Start copying a container's output to the write ends of pipes, which the caller still owns.

        console: request the process's input; `once`: exclusively, so that closing it ends the input. The
        fragment never waits: a pipe that cannot take a whole chunk is closed. Raises NotFound (it has ended),
        ResourceExhausted (too many clients).
        """
        wanted = {AttachFlag.STDOUT: stdout, AttachFlag.STDERR: stderr}
        flags: int = sum(flag for flag, fd in wanted.items() if fd >= 0)
        flags |= AttachFlag.INPUT * console | AttachFlag.ONCE * once
        request = self._send(
            Type.ATTACH, process_id, flags=flags, fds=[fd for fd in wanted.values() if fd >= 0]
        )
        # Created before the request: the end may be reported together with the answer.
        serial, detached = self._serial, self._loop.create_future()
        self._attached[serial] = detached
        detached.add_done_callback(lambda _: self._attached.pop(serial, None))
        try:
            await self._answer(request)
        except BaseException:
            detached.cancel()
            raise
        return Attached((*request.fds, -1)[0], detached)

    async def tcp_socket(self, family: int) -> int:
        """A non-blocking socket of AF_INET or AF_INET6 in the pod's network; the caller closes it."""
        request = self._send(Type.SOCKET, "", value=family)
        await self._answer(request)
        if not request.fds:
            raise DataLoss("make a socket: the fragment sent none")
        return request.fds[0]

    def keep(self, name: str, fd: int = -1) -> Awaitable[object]:
        """Have the open file of `fd` kept under `name`, beyond our own end; -1: no longer.

        It is sent by this call. Raises and answers with ResourceExhausted (it keeps too many).
        """
        return self._answer(self._send(Type.KEEP, name, fds=[fd] if fd >= 0 else []))

    async def kept(self, name: str) -> int:
        """An fd of what is kept under `name`, for the caller to close. Raises NotFound."""
        request = self._send(Type.KEPT, name)
        await self._answer(request)
        if not request.fds:
            raise DataLoss(f"give back {name}: the fragment sent none")
        return request.fds[0]

    async def list_processes(self) -> list[Entry]:
        request = self._send(Type.LIST, "")
        await self._answer(request)
        return request.entries

    async def get(self, process_id: str) -> Entry:
        """The entry of one process, with a pidfd while it runs. Raises NotFound."""
        request = self._send(Type.GET, process_id)
        await self._answer(request)
        if not request.entries:
            raise DataLoss(f"get {process_id}: the fragment sent no entry")
        return request.entries[0]

    async def forget(self, process_id: str) -> None:
        """Drop an ended process and its exit record; an unknown id is no error."""
        await self._ask(Type.FORGET, process_id)

    async def shutdown(self) -> None:
        """Make the fragment kill all its processes and exit; its exit is observed through its pidfd."""
        await self._ask(Type.SHUTDOWN)

    def close(self) -> None:
        """Disconnect; the fragment keeps running. Pending requests raise FragmentLost; no event follows."""
        self._connection.close()
        for request in self._waiting.values():
            if not request.done.done():
                request.done.set_exception(self._gone(request.type, request.process_id))
        self._waiting.clear()
        for detached in list(self._attached.values()):
            if not detached.done():
                detached.set_exception(FragmentLost(self._end))
                detached.exception()  # marks it as retrieved: the client may be gone

    async def _ask(
        self, type: Type, process_id: str = "", *, flags: int = 0, value: int = 0, fds: Sequence[int] = ()
    ) -> Message:
        return await self._answer(self._send(type, process_id, flags=flags, value=value, fds=fds))

    def _send_plan(
        self, type: Type, process_id: str, plan: Plan, donations: Donations | None, flags: int = 0
    ) -> _Request:
        log_plan(plan, process_id, self._sandbox_id)
        fds = (donations or Donations()).in_order(plan.donated)
        memfd = sealed(plan.encode())
        try:
            return self._send(type, process_id, flags=flags, fds=[memfd, *fds], plan=plan)
        finally:
            os.close(memfd)

    def _check_known(self, type: Type, process_id: str, flags: int, plan: Plan | None) -> None:
        """Raises FailedPrecondition for a request that this fragment does not support."""
        unknown = f"flags {flags:#x}" if flags else "this request"
        if not is_lacking(self._lacks, (Kind.REQUEST, type), flags):
            unknown = next(unknown_in(plan, self._lacks), "") if plan else ""
        if unknown:
            raise FailedPrecondition(
                f"{_said(type, process_id)}: {unknown}: not known to the pod's fragment, which is of another "
                f"release and speaks protocol version {self._version}; a new pod has a new fragment"
            )

    def _send(
        self,
        type: Type,
        process_id: str,
        *,
        flags: int = 0,
        value: int = 0,
        value2: int = 0,
        fds: Sequence[int] = (),
        plan: Plan | None = None,
    ) -> _Request:
        if not self._connection.is_open:
            raise self._gone(type, process_id)
        if self._other_version and type not in (Type.HELLO, Type.SHUTDOWN):
            raise OtherVersion(f"{_said(type, process_id)}: {self._other_version}")
        if self._lacks:
            self._check_known(type, process_id, flags, plan)
        self._serial += 1
        packet = pack(type, self._serial, process_id=process_id, flags=flags, value=value, value2=value2)
        try:
            self._connection.send(packet, fds)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._gone(type, process_id) from error
        except OSError as error:
            raise kernel_error(_said(type, process_id), error.errno or 0) from error
        request = _Request(type, process_id, plan, self._loop.create_future())
        self._waiting[self._serial] = request
        return request

    async def _answer(self, request: _Request) -> Message:
        try:
            return await request.done
        except BaseException:
            request.discard()
            raise

    def _packet(self, packet: bytes, fds: list[int]) -> None:
        try:
            message = unpack(packet)
            if message.type == Type.EXITED:
                self._on_event(Exited(message.process_id, message.flags, message.exit))
            elif message.type == Type.RESYNC:
                self._on_event(Resync())
            elif message.type == Type.DETACHED:
                self._detach(message)
            elif message.type == Type.ENTRY:
                self._listed(message, fds)
            else:
                self._answered(message, fds)
        except DataLoss as error:
            self._end = str(error)
            self._lost()

    def _listed(self, message: Message, fds: list[int]) -> None:
        request = self._waiting.get(message.serial)
        if request is None or request.done.done():
            return
        request.entries.append(_entry(message, fds))
        if request.type == Type.GET:
            del self._waiting[message.serial]
            request.done.set_result(message)

    def _answered(self, message: Message, fds: list[int]) -> None:
        request = self._waiting.pop(message.serial, None)
        if request is None or request.done.done():
            return
        if message.type == Type.OK:
            request.fds = _taken(fds)
            request.done.set_result(message)
        else:
            request.done.set_exception(_refused(request, message))

    def _detach(self, message: Message) -> None:
        detached = self._attached.get(message.serial)
        if detached is not None and not detached.done():
            detached.set_result(message.error == 0)

    def _gone(self, type: Type, process_id: str) -> FragmentLost:
        return FragmentLost(f"{_said(type, process_id)}: {self._end}")

    def _lost(self) -> None:
        self.close()
        self._on_event(Lost())


def _said(type: Type, process_id: str) -> str:
    return f"{_VERBS[type]} {process_id}".strip()


def _entry(message: Message, fds: list[int]) -> Entry:
    try:
        state = State(message.value)
    except ValueError:
        raise DataLoss(f"the fragment has {message.process_id} in unknown state {message.value}") from None
    return Entry(message.process_id, message.flags, state, message.value2, message.exit, *_taken(fds))


def _taken(fds: list[int]) -> list[int]:
    """Takes pidfd and console, in this order; further fds stay in the list and are closed."""
    taken = fds[:2]
    del fds[:2]
    return taken


def _refused(request: _Request, message: Message) -> PhantomError:
    return refusal(
        _said(request.type, request.process_id),
        number=message.error,
        stage=message.value,
        index=message.value2,
        text=message.text.decode("utf-8", "replace"),
        plan=request.plan,
    )

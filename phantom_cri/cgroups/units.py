"""Transient scopes, created by systemd over D-Bus (org.freedesktop.systemd1(5))."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from dbus_fast import BusType, DBusError, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from phantom_cri.cgroups.slices import Property
from phantom_cri.errors import AlreadyExists, DeadlineExceeded, FailedPrecondition, Internal, Unavailable

JOB_TIMEOUT_S = 30.0
"""Timeout for systemd's answer and for a job: systemd may be busy with other units."""

_SYSTEMD, _PATH, _MANAGER = (
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
)
_BUS, _BUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"
_JOB_REMOVED = f"type='signal',sender='{_SYSTEMD}',path='{_PATH}',interface='{_MANAGER}',member='JobRemoved'"
_NO_UNIT, _UNIT_EXISTS = f"{_SYSTEMD}.NoSuchUnit", f"{_SYSTEMD}.UnitExists"


class Units:
    """Scopes of this node's systemd. Connects when needed, and reconnects after a restart of the bus."""

    def __init__(self) -> None:
        self._bus: MessageBus | None = None
        self._connecting = asyncio.Lock()
        self._jobs: dict[str, list[asyncio.Future[str]]] = {}  # by unit: waiters for its job

    @property
    def jobs(self) -> int:
        """Units whose job is being waited for."""
        return len(self._jobs)

    async def start_scope(self, unit: str, slice_name: str, pid: int, limits: Sequence[Property]) -> None:
        """Create a delegated scope for one process; on return its cgroup exists and contains the process.

        Raises AlreadyExists, Internal (systemd refuses), Unavailable (no connection), DeadlineExceeded.
        """
        all_properties = [
            Property("Description", "s", f"phantom {unit}"),
            Property("Slice", "s", slice_name),
            Property("PIDs", "au", [pid]),
            Property("Delegate", "b", True),
            Property("DefaultDependencies", "b", False),
            Property("CollectMode", "s", "inactive-or-failed"),
            *(Property(f"{kind}Accounting", "b", True) for kind in ("CPU", "Memory", "IO", "Tasks")),
            *limits,
        ]
        body = [unit, "fail", _wire(all_properties), []]
        await self._job(unit, "StartTransientUnit", "ssa(sv)a(sa(sv))", body)

    async def stop(self, unit: str) -> None:
        """Stop a unit and all its processes; a missing unit is no error. Raises as `start_scope`."""
        try:
            await self._job(unit, "StopUnit", "ss", [unit, "replace"])
        except NoSuchUnit:
            return

    async def change(self, unit: str, limits: Sequence[Property]) -> None:
        """Change limits of a unit. Raises as `start_scope`, FailedPrecondition for a unit that is gone."""
        if limits:
            await self._call("SetUnitProperties", "sba(sv)", [unit, True, _wire(limits)])

    async def connect(self) -> None:
        """Raises Unavailable."""
        await self._connected()

    def close(self) -> None:
        if self._bus is not None:
            self._bus.disconnect()

    async def _job(self, unit: str, method: str, signature: str, body: list[Any]) -> None:
        """Call a method that starts a job for the unit, and wait for the job's end."""
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        waiting = self._jobs.setdefault(unit, [])
        waiting.append(ended)
        try:
            await self._call(method, signature, body)
            async with asyncio.timeout(JOB_TIMEOUT_S):
                result = await ended
        except TimeoutError:
            raise DeadlineExceeded(f"systemd: {method} {unit}: not done in {JOB_TIMEOUT_S:.0f} s") from None
        finally:
            waiting.remove(ended)
            if not waiting:
                self._jobs.pop(unit, None)
        if result != "done":
            raise Internal(f"systemd: {method} {unit}: the job ended as {result!r}")

    async def _call(self, method: str, signature: str, body: list[Any]) -> None:
        bus = await self._connected()
        try:
            await _asked(bus, _SYSTEMD, _PATH, _MANAGER, method, signature, body)
        except DBusError as error:
            raise _refusal(method, str(body[0]), error) from error
        except (EOFError, OSError) as error:
            raise Unavailable(
                f"systemd: {method} {body[0]}: the system bus disconnected ({error})"
            ) from error

    async def _connected(self) -> MessageBus:
        async with self._connecting:
            if self._bus is None or not self._bus.connected:
                self._bus = None
                try:
                    self._bus = await self._connect()
                except (OSError, EOFError, DBusError, TimeoutError) as error:
                    raise Unavailable(f"systemd: the system bus does not answer: {error}") from error
            return self._bus

    async def _connect(self) -> MessageBus:
        bus = MessageBus(bus_type=BusType.SYSTEM)
        try:
            async with asyncio.timeout(JOB_TIMEOUT_S):
                await bus.connect()
                bus.add_message_handler(self._heard)
                await _asked(bus, _BUS, _BUS_PATH, _BUS, "AddMatch", "s", [_JOB_REMOVED])
                await _asked(bus, _SYSTEMD, _PATH, _MANAGER, "Subscribe", "", [])
        except BaseException:
            bus.disconnect()
            raise
        return bus

    def _heard(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL or message.member != "JobRemoved":
            return
        _, _, unit, result = message.body
        for waiting in self._jobs.get(unit, ()):
            if not waiting.done():
                waiting.set_result(result)


class NoSuchUnit(FailedPrecondition):
    """The unit is not loaded: it has ended, or never was."""


async def _asked(
    bus: MessageBus, to: str, path: str, interface: str, member: str, signature: str, body: list[Any]
) -> None:
    message = Message(
        destination=to, path=path, interface=interface, member=member, signature=signature, body=body
    )
    async with asyncio.timeout(JOB_TIMEOUT_S):
        reply = await bus.call(message)
    if reply is not None and reply.message_type is MessageType.ERROR:
        text = str(reply.body[0]) if reply.body else ""
        raise DBusError(reply.error_name or "", text)


def _refusal(method: str, unit: str, error: DBusError) -> Exception:
    what = f"systemd: {method} {unit}: {error.text}"
    if error.type == _NO_UNIT:
        return NoSuchUnit(what)
    return AlreadyExists(what) if error.type == _UNIT_EXISTS else Internal(what)


def _wire(properties: Sequence[Property]) -> list[list[object]]:
    return [[one.name, Variant(one.signature, one.value)] for one in properties]

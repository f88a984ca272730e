"""The daemon's handle of one running fragment: its client, its events, its death."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable

from phantom_cri import codec, fragments, plans
from phantom_cri.errors import Internal, PhantomError
from phantom_cri.fragments import (
    Event,
    Exit,
    Exited,
    FragmentClient,
    FragmentLost,
    FragmentStatistics,
    Lost,
    summed,
)
from phantom_cri.model import ProcessRef

END_TIMEOUT = 5.0
"""Seconds that a fragment gets to end its processes before it is killed."""

DEATH_TIMEOUT = 1.0
"""Seconds within which the death of a fragment or container is reported."""

CHECK_TIMEOUT = 2.0
"""Seconds within which an idle fragment must answer a health check."""


class FragmentHandle:
    """A fragment, in a pool or in use by a pod. `id` is also the sandbox id of the pod that claims it."""

    def __init__(self, fragment_id: str, folder: str, process: ProcessRef, pidfd: int) -> None:
        """Takes over `pidfd`. `folder` is STATE/pods/ID."""
        self.id, self.folder, self.process = fragment_id, folder, process
        self.pool = ""  # "" if started for one pod
        self.ips: tuple[str, ...] = ()
        self.has_template = False  # /dev and /sys are ready for the first container
        self.spawned_at = time.monotonic()
        self.on_exit: Callable[[str, Exit], None] = lambda container_id, exit: None
        self.on_death: Callable[[], None] = lambda: None
        self.other_version = ""  # why it can only be watched and killed
        self._pidfd = pidfd
        self._client: FragmentClient | None = None
        self._dead = asyncio.Event()
        self._exec_exits: dict[str, asyncio.Future[Exit]] = {}
        self._early: dict[str, Exit] = {}
        self._catching_up: asyncio.Task[None] | None = None
        fragments.watch_death(pidfd, lambda status: self._died())

    async def connect(self) -> None:
        """Connect and send HELLO. Raises FragmentLost; OtherVersion: stays connected for the shutdown."""
        path = os.path.join(self.folder, fragments.SOCKET)
        client = FragmentClient.connect(path, self._event, self.id)
        try:
            await client.hello()
        except fragments.OtherVersion as error:
            self._client, self.other_version = client, str(error)
            raise
        except BaseException:
            client.close()
            raise
        self._client = client

    @property
    def client(self) -> FragmentClient:
        if self._client is None:
            raise FragmentLost(f"the fragment of {self.id} is not connected")
        return self._client

    def statistics(self) -> FragmentStatistics:
        counts = summed(()) if self._client is None else self._client.statistics()
        return codec.replace(counts, execs=len(self._exec_exits), early_exits=len(self._early))

    def alive(self) -> bool:
        return not self._dead.is_set()

    async def dies_within(self, seconds: float) -> bool:
        """Whether it dies in this time: at a pod's end, requests may fail before the death is reported."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._dead.wait()
        return not self.alive()

    async def check(self) -> bool:
        """Whether the fragment answers."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                await self.client.hello()
        except (TimeoutError, PhantomError):
            return False
        return True

    async def end(self) -> None:
        """Let it kill and reap its processes and flush their logs, then wait for its exit; idempotent."""
        if self.alive():
            try:
                async with asyncio.timeout(END_TIMEOUT):
                    await self.client.shutdown()
                    await self._dead.wait()
            except (TimeoutError, PhantomError):
                self.kill()
                await self._dead.wait()
        if self._catching_up is not None:
            self._catching_up.cancel()
        if self._client is not None:
            self._client.close()
            self._client = None

    def kill(self) -> None:
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def exec_exit(self, exec_id: str) -> asyncio.Future[Exit]:
        """A future of this exec's exit; FragmentLost if the fragment dies first. Call before the start."""
        future: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._exec_exits[exec_id] = future
        future.add_done_callback(lambda _: self._exec_exits.pop(exec_id, None))
        return future

    def keep_early_exit(self, container_id: str, exit: Exit) -> None:
        """Keep an exit that was reported before its start was recorded."""
        self._early[container_id] = exit

    def take_early_exit(self, container_id: str) -> Exit | None:
        return self._early.pop(container_id, None)

    def _event(self, event: Event) -> None:
        if self.other_version:
            return  # its events cannot be decoded
        if isinstance(event, Exited):
            self._exited(event)
        elif isinstance(event, Lost) and self._client is None:
            return  # we disconnected, or HELLO did not succeed
        elif self.alive() and (self._catching_up is None or self._catching_up.done()):
            self._catching_up = asyncio.create_task(self._catch_up(isinstance(event, Lost)))

    def _exited(self, event: Exited) -> None:
        if event.kind == plans.KIND_CONTAINER:
            self.on_exit(event.process_id, event.exit)
            return
        future = self._exec_exits.get(event.process_id)
        if future is not None and not future.done():
            future.set_result(event.exit)

    async def _catch_up(self, reconnect: bool) -> None:
        """Events were lost: query the processes. A fragment that does not answer is killed."""
        try:
            if reconnect:
                await self.connect()
            known = {entry.process_id for entry in await self._entries()}
        except PhantomError:
            self.kill()
            return
        for exec_id, future in list(self._exec_exits.items()):
            if exec_id not in known and not future.done():
                future.set_exception(Internal(f"exec {exec_id}: ended, but its exit code was lost"))

    async def _entries(self) -> list[fragments.Entry]:
        entries = await self.client.list_processes()
        for entry in entries:
            for fd in (entry.pidfd, entry.console):
                if fd >= 0:
                    os.close(fd)
            if entry.state == fragments.State.EXITED:
                self._exited(Exited(entry.process_id, entry.kind, entry.exit))
        return entries

    def _died(self) -> None:
        os.close(self._pidfd)
        self._dead.set()
        for future in list(self._exec_exits.values()):
            if not future.done():
                future.set_exception(FragmentLost("the pod ended during the exec"))
        self.on_death()

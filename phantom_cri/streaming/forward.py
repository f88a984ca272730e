"""One connection to a port of a pod: dialled on a client's request, and copied in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Protocol

from phantom_cri.errors import PhantomError
from phantom_cri.streaming.flows import Budget, Inflow, Outflow
from phantom_cri.streaming.pending import PendingForward, Spawn

log = logging.getLogger(__name__)


class ForwardWire(Protocol):
    def send(self, chunk: memoryview) -> None: ...

    def end(self) -> None:
        """The pod has closed its side."""
        ...

    def close(self, error: str) -> None:
        """The connection is over; `error` is empty if both sides closed normally."""
        ...


class Forward:
    """Runs until both directions have ended, or `stop`."""

    def __init__(self, pending: PendingForward, port: int, wire: ForwardWire, budget: Budget) -> None:
        self._pending = pending
        self._port = port
        self._wire = wire
        self._inflow = Inflow(budget)
        self._outflow: Outflow | None = None
        self._socket: socket.socket | None = None
        self._paused = False
        self._stopped = False
        self._directions = 2
        self._task: asyncio.Task[None] | None = None

    def begin(self, spawn: Spawn) -> None:
        self._task = spawn(self._dial())

    def take(self, chunk: memoryview) -> None:
        """Data from the client for the pod."""
        self._inflow.feed(chunk)

    def take_end(self) -> None:
        self._inflow.end(self._end_input)

    def pause(self) -> None:
        self._paused = True
        if self._outflow:
            self._outflow.pause()

    def resume(self) -> None:
        self._paused = False
        if self._outflow:
            self._outflow.resume()

    def stop(self) -> None:
        """Closes the connection to the pod, without further calls of the wire."""
        self._stopped = True
        self._inflow.stop()
        if self._outflow:
            self._outflow.stop()
        if self._socket:
            self._socket.close()
        elif self._task:
            self._task.cancel()

    async def _dial(self) -> None:
        try:
            fd = await self._pending.dial(self._port)
        except PhantomError as error:
            self._fail(str(error))
            return
        except Exception:
            log.exception("streaming: dialling port %d of pod %s failed", self._port, self._pending.pod_label)
            self._fail("see the runtime's log")
            return
        self._connect(socket.socket(fileno=fd))

    def _fail(self, reason: str) -> None:
        self._stopped = True
        self._inflow.stop()
        self._wire.close(f"error forwarding port {self._port} to pod {self._pending.pod_label}: {reason}")

    def _connect(self, to_pod: socket.socket) -> None:
        if self._stopped:
            to_pod.close()
            return
        self._socket = to_pod
        self._outflow = Outflow(to_pod.fileno(), self._wire.send, self._end_output)
        if not self._paused:
            self._outflow.resume()
        self._inflow.connect(to_pod.fileno())

    def _end_input(self) -> None:
        if self._socket:
            with contextlib.suppress(OSError):  # the pod has reset the connection: reported by the read
                self._socket.shutdown(socket.SHUT_WR)
        self._end_direction()

    def _end_output(self) -> None:
        self._wire.end()
        self._end_direction()

    def _end_direction(self) -> None:
        self._directions -= 1
        if not self._directions and not self._stopped:
            self.stop()
            self._wire.close("")

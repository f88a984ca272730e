"""What happens to tasks, told to containerd in order: by an event a file, until containerd has it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from pathlib import Path

from google.protobuf.message import Message

from phantom_cri import codec
from phantom_cri.api.containerd import events_pb2 as pb
from phantom_cri.concurrency import Background
from phantom_cri.errors import PhantomError
from phantom_cri.rpc.ttrpc_client import TtrpcClient

log = logging.getLogger(__name__)

SERVICE = "containerd.services.events.ttrpc.v1.Events"
CALL_TIMEOUT_S = 5.0
LONGEST_PAUSE_S = 30.0
MOST = 2048
"""Events kept for one containerd that does not answer; older ones are dropped then."""

_TOPICS: dict[type[Message], str] = {
    pb.TaskCreate: "/tasks/create",
    pb.TaskStart: "/tasks/start",
    pb.TaskExit: "/tasks/exit",
    pb.TaskDelete: "/tasks/delete",
    pb.TaskOOM: "/tasks/oom",
    pb.TaskExecAdded: "/tasks/exec-added",
    pb.TaskExecStarted: "/tasks/exec-started",
    pb.TaskPaused: "/tasks/paused",
    pb.TaskResumed: "/tasks/resumed",
}


class Publisher:
    """One queue for each containerd, by the address of its ttrpc socket. Nobody ever waits for it."""

    def __init__(self, folder: Path) -> None:
        """`folder`: keeps what is not told yet, for a later daemon. Raises OSError."""
        self._folder = folder
        self._queues: dict[str, deque[tuple[Path, bytes]]] = {}
        self._senders = Background()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = sorted(folder.iterdir())
        self._number = int(kept[-1].name) + 1 if kept else 0
        for path in kept:
            address, _, body = path.read_bytes().partition(b"\0")
            self._push(address.decode(), path, body)

    def publish(self, address: str, namespace: str, event: Message) -> None:
        """`address` "": nobody wants to hear of it."""
        if not address:
            return
        envelope = pb.Envelope(namespace=namespace, topic=_TOPICS[type(event)])
        envelope.timestamp.FromNanoseconds(time.time_ns())
        envelope.event.type_url = event.DESCRIPTOR.full_name  # containerd wants no type.googleapis.com/
        envelope.event.value = event.SerializeToString()
        body = pb.ForwardRequest(envelope=envelope).SerializeToString()
        path = self._folder / f"{self._number:020}"
        self._number += 1
        try:
            codec.write_atomically(path, address.encode() + b"\0" + body)
        except OSError as error:
            log.warning("an event is lost if this daemon ends before it is told: %s", error)
        self._push(address, path, body)

    def close(self) -> None:
        self._senders.cancel()

    def _push(self, address: str, path: Path, body: bytes) -> None:
        queue = self._queues.get(address)
        if queue is None:
            queue = self._queues[address] = deque()
            self._senders.start(self._send(address, queue), f"events to {address}")
        queue.append((path, body))
        if len(queue) > MOST:
            log.warning("containerd at %s does not take events: the oldest is dropped", address)
            queue.popleft()[0].unlink(missing_ok=True)

    async def _send(self, address: str, queue: deque[tuple[Path, bytes]]) -> None:
        client, pause = TtrpcClient(address), 0.0
        try:
            while queue:
                path, body = queue[0]
                try:
                    await client.call(SERVICE, "Forward", pb.ForwardRequest.FromString(body), CALL_TIMEOUT_S)
                except PhantomError as error:
                    pause = min(pause + 1, LONGEST_PAUSE_S)
                    log.debug("an event waits for containerd: %s", error)
                    await asyncio.sleep(pause)
                    continue
                pause = 0.0
                if queue and queue[0][0] == path:
                    queue.popleft()
                path.unlink(missing_ok=True)
        finally:
            client.close()
        del self._queues[address]  # nothing was awaited since it was found empty

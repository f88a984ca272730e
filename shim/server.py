"""The shim as a part of the daemon: the launcher's socket, and the task service that it leads to."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import TracebackType

from phantom_cri.api.containerd import task_pb2
from phantom_cri.rpc.server import make_way
from phantom_cri.rpc.ttrpc_server import TtrpcServer
from shim.events import Publisher
from shim.launch import LaunchService
from shim.node import Node
from shim.task_service import SERVICES, TaskService
from shim.tasks import Tasks

EVENTS = "events"


class ShimServer:
    """`async with` serves; `path` is the launcher's socket."""

    def __init__(self, path: Path, node: Node) -> None:
        self._path = path
        self._publisher = Publisher(node.state / EVENTS)
        tasks = Tasks(node, self._publisher)
        self._launches = LaunchService(node, tasks)
        descriptor = task_pb2.DESCRIPTOR.services_by_name["Task"]
        service = TaskService(tasks, node.version)
        self._tasks = TtrpcServer(
            Path(node.address), {name: (descriptor, service) for name in SERVICES}, node.metrics
        )
        self._launcher: asyncio.Server | None = None

    async def __aenter__(self) -> ShimServer:
        """Raises AlreadyExists when another daemon answers there, ConfigError for a bad path."""
        await asyncio.to_thread(make_way, self._path)
        await self._tasks.__aenter__()
        mask = os.umask(0o177)
        try:
            self._launcher = await asyncio.start_unix_server(self._launches.serve, self._path)
        finally:
            os.umask(mask)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._launcher is not None:
            self._path.unlink(missing_ok=True)
            self._launcher.close()
        await self._tasks.__aexit__(kind, error, trace)
        self._publisher.close()

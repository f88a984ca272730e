"""The shim as a part of the daemon: the launcher's socket, and the task service that it leads to."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path
from types import TracebackType

from phantom_cri.api.containerd import task_pb2
from phantom_cri.errors import PhantomError
from phantom_cri.fragments.handle import FragmentHandle
from phantom_cri.rpc.server import make_way
from phantom_cri.rpc.ttrpc_server import TtrpcServer
from shim.cgroup_verbs import CgroupVerbs
from shim.events import Publisher
from shim.launch import LaunchService
from shim.node import Node
from shim.recovery import find_pod
from shim.task_service import SERVICES, TaskService
from shim.tasks import Tasks
from shim.wires import LISTENER, kept_wires

log = logging.getLogger(__name__)

EVENTS = "events"


class ShimServer:
    """`async with` serves; `path` is the launcher's socket. Pods go on without it."""

    def __init__(self, path: Path, node: Node) -> None:
        self._path, self._node = path, node
        self._publisher = Publisher(node.state / EVENTS)
        self._tasks = Tasks(node, self._publisher)
        self._launches = LaunchService(node, self._tasks)
        descriptor = task_pb2.DESCRIPTOR.services_by_name["Task"]
        service = TaskService(self._tasks, CgroupVerbs(node, self._tasks), node.version)
        self._server = TtrpcServer(
            Path(node.address), {name: (descriptor, service) for name in SERVICES}, node.metrics
        )
        self._launcher: asyncio.Server | None = None

    @property
    def has_pods(self) -> bool:
        return bool(self._tasks.pods)

    async def __aenter__(self) -> ShimServer:
        """Raises AlreadyExists when another daemon answers there, ConfigError for a bad path."""
        await asyncio.to_thread(make_way, self._path)
        await self._recover()
        mask = os.umask(0o177)
        try:
            self._launcher = await asyncio.start_unix_server(self._launches.serve, self._path)
        finally:
            os.umask(mask)
        return self

    async def _recover(self) -> None:
        """Take over pods, then what containerd has asked of an earlier daemon, then new clients."""
        folders = [path for path in self._node.state.iterdir() if path.is_dir() and path.name != EVENTS]
        pods = [pod for pod in await asyncio.gather(*map(find_pod, folders)) if pod is not None]
        for pod in pods:
            try:
                await self._tasks.take_over(pod)
            except PhantomError as error:  # rather one pod less than no daemon
                log.error("a pod of containerd cannot be taken over: %s: %s", pod.record.group, error)
        listener = None
        for fragment in [pod.fragment for pod in pods if pod.fragment is not None]:
            for peer, wire, requests in await kept_wires(fragment):
                self._server.adopt(peer, wire, requests)
            listener = listener or await self._kept_listener(fragment)
        self._tasks.listener = await self._server.listen(listener)

    async def _kept_listener(self, fragment: FragmentHandle) -> socket.socket | None:
        try:
            listener = socket.socket(fileno=await fragment.client.kept(LISTENER))
        except PhantomError:  # there is none, or the fragment has just died
            return None
        if listener.getsockname() == self._node.address:
            return listener
        listener.close()  # the configuration has another path now
        return None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._launcher is not None:
            self._path.unlink(missing_ok=True)
            self._launcher.close()
        await self._server.close(keep=self.has_pods)
        await self._tasks.warm.close()
        self._publisher.close()

"""Exec, Attach and PortForward: what is asked for is checked now, and done when the client has come."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from phantom_cri.errors import PhantomError
from phantom_cri.lifecycle.node import Node
from phantom_cri.lifecycle.running import running
from phantom_cri.lifecycle.streams.attach_session import AttachSession, open_attach
from phantom_cri.lifecycle.streams.client_pipes import ClientPipes
from phantom_cri.lifecycle.streams.exec_session import ExecSession, open_exec
from phantom_cri.lifecycle.streams.port_forward import dial, ready_pod
from phantom_cri.model import Streams


class StreamingVerbs:
    """`phantom_cri.cri.streaming_service.StreamingVerbs` over one node."""

    _node: Node

    async def exec(self, container_id: str, command: Sequence[str], streams: Streams) -> str:
        node = self._node
        container = running(node, container_id, "exec").container

        async def open_session() -> ExecSession:
            session = await open_exec(node, container.id, tuple(command), streams)
            count(node, "exec", session)
            return session

        return node.streams.offer_exec(
            open_session, tty=streams.tty, stdin=streams.stdin, stdout=streams.stdout, stderr=streams.stderr
        )

    async def attach(self, container_id: str, streams: Streams) -> str:
        node = self._node
        container = running(node, container_id, "attach").container

        async def open_session() -> AttachSession:
            session = await open_attach(node, container.id, streams)
            count(node, "attach", session)
            return session

        return node.streams.offer_attach(
            open_session, tty=streams.tty, stdin=streams.stdin, stdout=streams.stdout, stderr=streams.stderr
        )

    async def port_forward(self, sandbox_id: str, ports: Sequence[int]) -> str:
        node = self._node
        pod, _ = ready_pod(node, sandbox_id)

        async def connect(port: int) -> int:
            try:
                connection = await dial(node, pod.id, port)
            except PhantomError as error:
                node.metrics.port_forwarded(error.code)
                raise
            node.metrics.port_forwarded("ok")
            return connection

        label = f"pod {pod.id}, uid : {pod.record.config.metadata.uid}"
        return node.streams.offer_port_forward(connect, ports=ports, pod_label=label)


def count(node: Node, kind: Literal["exec", "attach"], session: ClientPipes) -> None:
    """In the gauge of open sessions, until it is closed."""
    node.metrics.session_opened(kind)
    session.on_close = partial(node.metrics.session_closed, kind)

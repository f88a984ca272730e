"""Exec, Attach and PortForward: what is asked for is checked now, and done when the client has come."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from phantom_cri.lifecycle.attach_session import open_attach
from phantom_cri.lifecycle.exec_session import open_exec
from phantom_cri.lifecycle.node import Node
from phantom_cri.lifecycle.port_forward import dial, ready_pod
from phantom_cri.lifecycle.running import running
from phantom_cri.model import Streams


class StreamingVerbs:
    """`phantom_cri.cri.streaming_service.StreamingVerbs` over one node."""

    _node: Node

    async def exec(self, container_id: str, command: Sequence[str], streams: Streams) -> str:
        container = running(self._node, container_id, "exec").container
        return self._node.streams.offer_exec(
            partial(open_exec, self._node, container.id, tuple(command), streams),
            tty=streams.tty,
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
        )

    async def attach(self, container_id: str, streams: Streams) -> str:
        container = running(self._node, container_id, "attach").container
        return self._node.streams.offer_attach(
            partial(open_attach, self._node, container.id, streams),
            tty=streams.tty,
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
        )

    async def port_forward(self, sandbox_id: str, ports: Sequence[int]) -> str:
        pod, _ = ready_pod(self._node, sandbox_id)
        return self._node.streams.offer_port_forward(
            partial(dial, self._node, pod.id),
            ports=ports,
            pod_label=f"pod {pod.id}, uid : {pod.record.config.metadata.uid}",
        )

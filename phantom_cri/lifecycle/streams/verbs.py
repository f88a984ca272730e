"""Exec, Attach and PortForward: the request is checked now, and executed when the client connects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from phantom_cri.errors import PhantomError
from phantom_cri.lifecycle.running import running
from phantom_cri.lifecycle.runtime import Runtime
from phantom_cri.lifecycle.streams.attach_session import AttachSession, open_attach
from phantom_cri.lifecycle.streams.client_pipes import ClientPipes
from phantom_cri.lifecycle.streams.exec_session import ExecSession, open_exec
from phantom_cri.lifecycle.streams.port_forward import dial, ready_pod
from phantom_cri.model import Streams


class StreamingVerbs:
    """Implements `phantom_cri.cri.streaming_service.StreamingVerbs`."""

    _runtime: Runtime

    async def exec(self, container_id: str, command: Sequence[str], streams: Streams) -> str:
        runtime = self._runtime
        container = running(runtime, container_id, "exec").container

        async def open_session() -> ExecSession:
            session = await open_exec(runtime, container.id, tuple(command), streams)
            count(runtime, "exec", session)
            return session

        return runtime.streams.offer_exec(
            open_session, tty=streams.tty, stdin=streams.stdin, stdout=streams.stdout, stderr=streams.stderr
        )

    async def attach(self, container_id: str, streams: Streams) -> str:
        runtime = self._runtime
        container = running(runtime, container_id, "attach").container

        async def open_session() -> AttachSession:
            session = await open_attach(runtime, container.id, streams)
            count(runtime, "attach", session)
            return session

        return runtime.streams.offer_attach(
            open_session, tty=streams.tty, stdin=streams.stdin, stdout=streams.stdout, stderr=streams.stderr
        )

    async def port_forward(self, sandbox_id: str, ports: Sequence[int]) -> str:
        runtime = self._runtime
        pod, _ = ready_pod(runtime, sandbox_id)

        async def connect(port: int) -> int:
            try:
                connection = await dial(runtime, pod.id, port)
            except PhantomError as error:
                runtime.metrics.port_forwarded(error.code)
                raise
            runtime.metrics.port_forwarded("ok")
            return connection

        label = f"pod {pod.id}, uid : {pod.record.config.metadata.uid}"
        return runtime.streams.offer_port_forward(connect, ports=ports, pod_label=label)


def count(runtime: Runtime, kind: Literal["exec", "attach"], session: ClientPipes) -> None:
    """Count it in the gauge of open sessions until it is closed."""
    runtime.metrics.session_opened(kind)
    session.on_close = partial(runtime.metrics.session_closed, kind)

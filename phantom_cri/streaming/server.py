"""The streaming server's face: URLs for the kubelet, each good for one connection."""

from __future__ import annotations

from collections.abc import Sequence

from phantom_cri.errors import Unavailable
from phantom_cri.streaming.session import Dial, OpenSession


class StreamServer:
    """Listens at `address`:`port` (0: any free port) and serves what was offered.

    `tls`: paths of a PEM certificate and of its key. `idle_timeout_s`: a connection on which nothing moves for
    so long is closed. `creation_timeout_s`: a client that has not made all of its streams by then is dropped.
    `base_url`: what clients are told instead of the address listened at, as `https://node.example:10010`.
    """

    def __init__(
        self,
        address: str = "127.0.0.1",
        port: int = 0,
        *,
        tls: tuple[str, str] | None = None,
        idle_timeout_s: float = 4 * 3600,
        creation_timeout_s: float = 30,
        base_url: str = "",
    ) -> None: ...

    async def start(self) -> None:
        """Raises FailedPrecondition naming the address or the TLS files that cannot be used."""
        raise Unavailable("streaming server: not started")

    async def close(self) -> None:
        """Ends every connection, tells clients so, and waits until all sessions are closed."""

    def offer_exec(
        self, open_session: OpenSession, *, tty: bool, stdin: bool, stdout: bool, stderr: bool
    ) -> str:
        """A URL at which the client gets its exec's streams, once and within a minute.

        `open_session` is called when the client has all its streams; it is cancelled, or what it opened
        is closed, when the client goes away. Raises ResourceExhausted when 1000 URLs wait to be used, and
        Unavailable when the server is not running.
        """
        raise Unavailable("streaming server: not started")

    def offer_attach(
        self, open_session: OpenSession, *, tty: bool, stdin: bool, stdout: bool, stderr: bool
    ) -> str:
        """As `offer_exec`; the client is told success at the end whatever the exit code is."""
        raise Unavailable("streaming server: not started")

    def offer_port_forward(self, dial: Dial, *, ports: Sequence[int] = (), pod_label: str) -> str:
        """A URL for any number of connections to ports of a pod.

        `ports` matter to the old WebSocket form only, which has no other way to name them. `pod_label` stands
        in the errors that the client reads, as `pod ID, uid : …` has it. Raises as `offer_exec`.
        """
        raise Unavailable("streaming server: not started")

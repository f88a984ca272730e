"""The streaming server: URLs for the kubelet, each valid for one connection, and the connections."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import Sequence

from phantom_cri.codec import Record
from phantom_cri.concurrency import Background
from phantom_cri.errors import FailedPrecondition, Unavailable
from phantom_cri.streaming.client_connection import ClientConnection
from phantom_cri.streaming.pending import (
    PendingForward,
    PendingStdio,
    PendingStream,
    PendingStreams,
    Settings,
)
from phantom_cri.streaming.session import Dial, OpenSession
from phantom_cri.streaming.upgrade import UpgradeHandler

MAX_UNASKED = 256
"""Most connections without a request yet. Another one closes the oldest of them."""

GOODBYE_S = 2.0
"""Seconds to notify clients that the server stops."""


class StreamStatistics(Record, frozen=True):
    """`urls`: not used yet; `connections`: of clients; `unasked`: those of them that have not sent a request
    yet.
    """

    urls: int
    connections: int
    unasked: int


class StreamServer:
    """Listens at `address`:`port` (0: any free port) and serves the offered streams.

    `tls`: paths of a PEM certificate and of its key. `idle_timeout_s`: a connection without data for this
    time is closed. `creation_timeout_s`: a client that has not created all of its streams by then is
    disconnected. `base_url`: used in URLs instead of the listening address, as
    `https://node.example:10010`.
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
    ) -> None:
        self._address = address
        self._port = port
        self._tls = tls
        self._idle_timeout_s = idle_timeout_s
        self._tasks = Background()
        self._settings = Settings(self._tasks.start, creation_timeout_s)
        self._base_url = base_url.rstrip("/")
        self._url = ""
        self._pending = PendingStreams()
        self._server: asyncio.Server | None = None
        self._connections: set[ClientConnection] = set()
        self._unasked: dict[ClientConnection, None] = {}
        self._quiet = asyncio.Event()

    async def start(self) -> None:
        """Raises FailedPrecondition naming an address or TLS files that cannot be used."""
        context = _server_context(*self._tls) if self._tls else None
        timeout_s = self._settings.creation_timeout_s if context else None
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self._accept, self._address, self._port, ssl=context, ssl_handshake_timeout=timeout_s
            )
        except OSError as error:
            raise FailedPrecondition(
                f"streaming: cannot listen at {self._address}:{self._port}: {error.strerror or error}"
            ) from None
        port = self._server.sockets[0].getsockname()[1]
        scheme = "https" if context else "http"
        self._url = self._base_url or f"{scheme}://{_reachable(self._address)}:{port}"

    async def close(self) -> None:
        """Ends every connection, notifies clients, and waits until all sessions are closed."""
        if self._server is None:
            return
        self._server.close()
        self._url = ""
        for connection in list(self._connections):
            connection.handler.shut_down()
        await self._tasks.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wait_for_lines(), GOODBYE_S)
        for connection in list(self._connections):
            connection.abort()
        await self._wait_for_lines()
        await self._server.wait_closed()
        self._server = None

    def offer_exec(
        self, open_session: OpenSession, *, tty: bool, stdin: bool, stdout: bool, stderr: bool
    ) -> str:
        """A URL for the streams of an exec, valid once and for a minute.

        `open_session` is called when the client has created all its streams; when the client disconnects, it
        is cancelled, or its session closed. Raises ResourceExhausted if 1000 URLs are not used yet, and
        Unavailable if the server is not running.
        """
        return self._add_pending("exec", PendingStdio(open_session, tty, stdin, stdout, stderr, attach=False))

    def offer_attach(
        self, open_session: OpenSession, *, tty: bool, stdin: bool, stdout: bool, stderr: bool
    ) -> str:
        """As `offer_exec`; at the end success is reported to the client, whatever the exit code is."""
        return self._add_pending(
            "attach", PendingStdio(open_session, tty, stdin, stdout, stderr, attach=True)
        )

    def offer_port_forward(self, dial: Dial, *, ports: Sequence[int] = (), pod_label: str) -> str:
        """A URL for any number of connections to ports of a pod.

        `ports`: only used by the old WebSocket protocol, whose clients cannot name them. `pod_label`: used in
        errors for the client, as `pod ID, uid : …`. Raises as `offer_exec`.
        """
        return self._add_pending("portforward", PendingForward(dial, tuple(ports), pod_label))

    def statistics(self) -> StreamStatistics:
        return StreamStatistics(len(self._pending), len(self._connections), len(self._unasked))

    def _add_pending(self, path: str, pending: PendingStream) -> str:
        if not self._url:
            raise Unavailable("streaming: the server is not running")
        return self._url + self._pending.add(path, pending)

    def _accept(self) -> ClientConnection:
        return ClientConnection(self._greet, self._forget, self._settings.creation_timeout_s)

    def _greet(self, connection: ClientConnection) -> UpgradeHandler:
        if len(self._unasked) >= MAX_UNASKED:
            oldest = next(iter(self._unasked))
            del self._unasked[oldest]
            oldest.abort()
        self._connections.add(connection)
        self._unasked[connection] = None
        self._quiet.clear()
        return UpgradeHandler(connection, self._pending, self._settings, self._opened)

    def _opened(self, connection: ClientConnection) -> None:
        self._unasked.pop(connection, None)
        connection.idle_after(self._idle_timeout_s)

    def _forget(self, connection: ClientConnection) -> None:
        self._unasked.pop(connection, None)
        self._connections.discard(connection)
        if not self._connections:
            self._quiet.set()

    async def _wait_for_lines(self) -> None:
        if self._connections:
            await self._quiet.wait()


def _server_context(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # includes ssl.SSLError
        raise FailedPrecondition(f"streaming: TLS files {certificate}, {key}: {error}") from None
    return context


def _reachable(address: str) -> str:
    """The address for a URL that is used on this node."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.is_unspecified:
        parsed = ipaddress.ip_address("127.0.0.1" if parsed.version == 4 else "::1")
    return str(parsed) if parsed.version == 4 else f"[{parsed}]"

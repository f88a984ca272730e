"""The HTTP/1.1 request of every stream: looks up the pending stream, and negotiates the protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus

import h11
from wsproto import WSConnection
from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection
from wsproto.utilities import RemoteProtocolError

from phantom_cri.streaming import forward_spdy, forward_websocket, stdio_spdy, stdio_websocket
from phantom_cri.streaming.client_connection import ClientConnection, ProtocolHandler
from phantom_cri.streaming.pending import PendingForward, PendingStream, PendingStreams, Settings
from phantom_cri.streaming.spdy import Conversation, Spdy
from phantom_cri.streaming.websocket import MessageTaker, WebSocket

Headers = list[tuple[bytes, bytes]]


class Refusal(Exception):
    """An error response, instead of status 101."""

    def __init__(self, code: int, reason: str, headers: Headers | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.headers = headers or []


class UpgradeHandler:
    """A connection's first handler. `opened` is called when another handler has taken over."""

    def __init__(
        self,
        connection: ClientConnection,
        pending: PendingStreams,
        settings: Settings,
        opened: Callable[[ClientConnection], None],
    ) -> None:
        self._connection = connection
        self._pending = pending
        self._settings = settings
        self._opened = opened
        self._http = h11.Connection(h11.SERVER)
        self._request: h11.Request | None = None

    def receive(self, chunk: memoryview) -> None:
        try:
            self._http.receive_data(bytes(chunk))
            request = self._whole_request()
            if request:
                self._answer(request)
        except Refusal as refusal:
            self._refuse(refusal)
        except h11.RemoteProtocolError as error:
            self._refuse(Refusal(error.error_status_hint, str(error)))

    def gone(self) -> None: ...

    def output_paused(self) -> None: ...

    def output_resumed(self) -> None: ...

    def shut_down(self) -> None:
        self._connection.finish()

    def _whole_request(self) -> h11.Request | None:
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._request = event
            elif isinstance(event, h11.EndOfMessage):
                return self._request
            elif isinstance(event, h11.Data):
                raise Refusal(HTTPStatus.BAD_REQUEST, "the request must have no body")
            else:
                return None

    def _answer(self, request: h11.Request) -> None:
        if request.method not in (b"GET", b"POST"):
            raise Refusal(
                HTTPStatus.METHOD_NOT_ALLOWED, "the method must be GET or POST", [(b"allow", b"GET, POST")]
            )
        # The query, and headers that are not read below, only repeat the CRI request.
        path = request.target.decode("ascii").partition("?")[0]
        pending = self._pending.take(path)
        if pending is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "the URL is unknown, was used before or has expired")
        upgrades = _tokens(request, b"upgrade")
        if "upgrade" not in _tokens(request, b"connection") or not upgrades:
            raise Refusal(HTTPStatus.BAD_REQUEST, "the request must ask to upgrade to SPDY/3.1 or websocket")
        if "websocket" in upgrades:
            self._to_websocket(request, pending)
        elif "spdy/3.1" in upgrades:
            self._to_spdy(request, pending)
        else:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"cannot upgrade to {upgrades[0]!r:.60}")

    def _to_spdy(self, request: h11.Request, pending: PendingStream) -> None:
        forwards = isinstance(pending, PendingForward)
        spoken = (forward_spdy.PROTOCOL,) if forwards else stdio_spdy.PROTOCOLS
        asked = _values(request, b"x-stream-protocol-version")
        if not asked:
            raise Refusal(HTTPStatus.BAD_REQUEST, "the header X-Stream-Protocol-Version is missing")
        protocol = _first_common(asked, spoken)
        if protocol is None:
            supported = [(b"X-Accepted-Stream-Protocol-Versions", name.encode()) for name in spoken]
            raise Refusal(HTTPStatus.FORBIDDEN, f"no protocol of {', '.join(asked)!r:.200}", supported)
        answer = h11.InformationalResponse(
            status_code=HTTPStatus.SWITCHING_PROTOCOLS,
            reason=b"Switching Protocols",
            headers=[
                ("Connection", "Upgrade"),
                ("Upgrade", "SPDY/3.1"),
                ("X-Stream-Protocol-Version", protocol),
            ],
        )
        spdy = Spdy(self._connection)
        self._connection.write(self._http.send(answer) or b"")
        spdy.conversation = self._conversation(pending, protocol, spdy)
        self._hand_over(spdy)

    def _conversation(self, pending: PendingStream, protocol: str, spdy: Spdy) -> Conversation:
        if isinstance(pending, PendingForward):
            return forward_spdy.SpdyForward(pending, self._connection, spdy, self._settings)
        return stdio_spdy.SpdyStdio(pending, protocol, self._connection, spdy, self._settings)

    def _to_websocket(self, request: h11.Request, pending: PendingStream) -> None:
        if request.method != b"GET":
            raise Refusal(HTTPStatus.BAD_REQUEST, "a WebSocket needs the method GET")
        forwards = isinstance(pending, PendingForward)
        spoken = forward_websocket.PROTOCOLS if forwards else stdio_websocket.PROTOCOLS
        protocol = _first_common(_values(request, b"sec-websocket-protocol") or [""], spoken)
        if protocol is None:
            raise Refusal(HTTPStatus.FORBIDDEN, "no protocol of Sec-WebSocket-Protocol is supported")
        connection = WSConnection(ConnectionType.SERVER)
        try:
            connection.initiate_upgrade_connection(list(request.headers), request.target)
        except RemoteProtocolError as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, str(error)) from None
        except ValueError:  # an invalid Host
            raise Refusal(HTTPStatus.BAD_REQUEST, "malformed header") from None
        list(connection.events())  # the request, which was already read
        self._connection.write(connection.send(AcceptConnection(subprotocol=protocol or None)))
        socket = WebSocket(self._connection, connection)
        socket.taker = self._taker(pending, protocol, socket)
        self._hand_over(socket)

    def _taker(self, pending: PendingStream, protocol: str, socket: WebSocket) -> MessageTaker:
        if not isinstance(pending, PendingForward):
            return stdio_websocket.WebSocketStdio(pending, protocol, self._connection, socket, self._settings)
        if protocol != forward_websocket.TUNNEL:
            return forward_websocket.WebSocketForward(
                pending, protocol, self._connection, socket, self._settings
            )
        tunnel = forward_websocket.Tunnel(self._connection, socket)
        tunnel.spdy = Spdy(tunnel)
        tunnel.spdy.conversation = forward_spdy.SpdyForward(pending, tunnel, tunnel.spdy, self._settings)
        return tunnel

    def _hand_over(self, handler: ProtocolHandler) -> None:
        """Data that the client sent after its request belongs to the new protocol."""
        self._connection.handler = handler
        self._opened(self._connection)
        if isinstance(handler, WebSocket):
            handler.taker.begin()
        rest, _ = self._http.trailing_data
        if rest:
            self._connection.take(memoryview(rest))

    def _refuse(self, refusal: Refusal) -> None:
        body = f"{refusal}\n".encode()
        headers: Headers = [
            *refusal.headers,
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        reason = HTTPStatus(refusal.code).phrase.encode()
        answer = h11.Response(status_code=refusal.code, reason=reason, headers=headers)
        # A new state: the one that read the request may have seen an error, or no request at all.
        http = h11.Connection(h11.SERVER)
        parts = (http.send(answer), http.send(h11.Data(data=body)), http.send(h11.EndOfMessage()))
        self._connection.write(b"".join(part or b"" for part in parts))
        self._connection.finish()


def _values(request: h11.Request, name: bytes) -> list[str]:
    """All values of a header that may be repeated, and have several values each."""
    texts = [value.decode("latin-1") for key, value in request.headers if key == name]
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]


def _tokens(request: h11.Request, name: bytes) -> list[str]:
    return [value.lower() for value in _values(request, name)]


def _first_common(asked: Sequence[str], spoken: Sequence[str]) -> str | None:
    """The client's first choice that is supported."""
    by_name = {name.lower(): name for name in spoken}
    return next((by_name[name.lower()] for name in asked if name.lower() in by_name), None)

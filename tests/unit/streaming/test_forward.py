"""Port-forward over SPDY and WebSocket, to real sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from phantom_cri.streaming import StreamServer
from phantom_cri.streaming.spdy import MAX_STREAMS
from tests.unit.streaming.sessions import dial, until
from tests.unit.streaming.spdy_client import SpdyClient
from tests.unit.streaming.websocket_client import WebSocketClient

PROTOCOL = "portforward.k8s.io"
LABEL = "0123abcd, uid : 42"


@asynccontextmanager
async def echo_server() -> AsyncIterator[int]:
    """Echoes until its client has ended its side, then says bye."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
            writer.write(b"bye")
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def pair(client: SpdyClient, port: int, request: int = 0) -> tuple[int, int]:
    """(error, data) streams as kubectl makes them."""
    error = await client.stream(streamtype="error", port=str(port), requestid=str(request))
    client.send(error, b"", end=True)
    return error, await client.stream(streamtype="data", port=str(port), requestid=str(request))


@asynccontextmanager
async def forwarding(server: StreamServer) -> AsyncIterator[SpdyClient]:
    client = await SpdyClient.connect(server.offer_port_forward(dial, pod_label=LABEL), PROTOCOL)
    assert client.headers["x-stream-protocol-version"] == PROTOCOL
    try:
        yield client
    finally:
        await client.close()


async def test_both_ways_and_both_ends(server: StreamServer) -> None:
    async with echo_server() as port, forwarding(server) as client:
        error, data = await pair(client, port)
        client.send(data, b"hello ")
        await client.until(lambda: client.text(data) == b"hello ")
        client.send(data, b"there ", end=True)
        await client.until(lambda: {error, data} <= client.ended)
        assert client.text(data) == b"hello there bye"
        assert client.text(error) == b""
        assert not client.closed  # the connection is for as many as the client likes


async def test_many_at_once(server: StreamServer) -> None:
    async with echo_server() as port, forwarding(server) as client:
        pairs = [await pair(client, port, request) for request in range(40)]
        for number, (_, data) in enumerate(pairs):
            client.send(data, b"%d " % number * 1000, end=True)
        await client.until(lambda: all(data in client.ended for _, data in pairs))
        for number, (_, data) in enumerate(pairs):
            assert client.text(data) == b"%d " % number * 1000 + b"bye"


async def test_much_data_arrives_whole(server: StreamServer) -> None:
    async with echo_server() as port, forwarding(server) as client:
        _, data = await pair(client, port)
        whole = bytes(range(256)) * 40_000
        for at in range(0, len(whole), 32 << 10):
            client.send(data, whole[at : at + (32 << 10)])
            await client.writer.drain()
        client.send(data, b"", end=True)
        await client.until(lambda: data in client.ended)
        assert client.text(data) == whole + b"bye"


async def test_a_port_that_nobody_listens_at(server: StreamServer) -> None:
    async with echo_server() as port, forwarding(server) as client:
        dead = unused_port()
        error, data = await pair(client, dead)
        await client.until(lambda: error in client.ended and data in client.resets)
        said = client.text(error).decode()
        assert said.startswith(f"error forwarding port {dead} to pod {LABEL}: connect to port {dead}")
        _, data = await pair(client, port, 1)
        client.send(data, b"x", end=True)
        await client.until(lambda: client.text(data) == b"xbye")


@pytest.mark.parametrize(
    "headers",
    [
        {"streamtype": "data"},
        {"streamtype": "data", "port": "0"},
        {"streamtype": "data", "port": "65536"},
        {"streamtype": "error", "port": "-1"},
        {"streamtype": "error", "port": "8o"},
        {"port": "80"},
        {"streamtype": "stdin", "port": "80"},
    ],
)
async def test_streams_that_are_refused(server: StreamServer, headers: dict[str, str]) -> None:
    async with forwarding(server) as client:
        stream = await client.stream(True, 0, **headers)
        assert client.resets == {stream: 1}
        assert stream not in client.replied


async def test_a_second_stream_of_a_kind_is_refused(server: StreamServer) -> None:
    async with echo_server() as port, forwarding(server) as client:
        _, data = await pair(client, port)
        twin = await client.stream(streamtype="data", port=str(port), requestid="0")
        assert twin in client.resets
        client.send(data, b"x", end=True)
        await client.until(lambda: client.text(data) == b"xbye")


async def test_clients_of_old_name_no_request(server: StreamServer) -> None:
    async with echo_server() as port, forwarding(server) as client:
        await client.stream(streamtype="error", port=str(port))
        data = await client.stream(streamtype="data", port=str(port))
        client.send(data, b"old", end=True)
        await client.until(lambda: client.text(data) == b"oldbye")


async def test_half_a_pair_is_told_off_in_time() -> None:
    server = StreamServer(creation_timeout_s=0.2)
    await server.start()
    async with forwarding(server) as client:
        error = await client.stream(streamtype="error", port="80", requestid="1")
        await client.until(lambda: error in client.ended)
        assert b"timed out waiting for the data stream" in client.text(error)
    await server.close()


async def test_a_client_that_resets_closes_the_pods_connection(server: StreamServer) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    async with forwarding(server) as client:
        _, data = await pair(client, listener.getsockname()[1])
        accepted, _ = await asyncio.to_thread(listener.accept)
        accepted.settimeout(5)
        client.control(3, struct.pack(">II", data, 5))
        assert await asyncio.to_thread(accepted.recv, 1) == b""
        accepted.close()
    listener.close()


async def test_a_client_that_leaves_closes_the_pods_connections(server: StreamServer) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    async with forwarding(server) as client:
        await pair(client, listener.getsockname()[1])
        accepted, _ = await asyncio.to_thread(listener.accept)
        accepted.settimeout(5)
    assert await asyncio.to_thread(accepted.recv, 1) == b""
    accepted.close()
    listener.close()


async def test_a_dial_is_given_up_with_its_client(server: StreamServer) -> None:
    given_up = asyncio.Event()

    async def never(port: int) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()
        return -1

    client = await SpdyClient.connect(server.offer_port_forward(never, pod_label=LABEL), PROTOCOL)
    await pair(client, 80)
    await client.close()
    await asyncio.wait_for(given_up.wait(), 5)


async def test_more_streams_than_one_connection_may_have(server: StreamServer) -> None:
    async with forwarding(server) as client:
        for number in range(MAX_STREAMS):
            await client.stream(wait=False, streamtype="error", port="80", requestid=str(number))
        refused = await client.stream(streamtype="error", port="80", requestid="one more")
        assert client.resets == {refused: 3}
        assert len(client.replied) == MAX_STREAMS


async def test_streams_opened_and_reset_leave_nothing(server: StreamServer) -> None:
    async with forwarding(server) as client:
        for number in range(3000):
            stream = await client.stream(wait=False, streamtype="error", port="80", requestid=str(number))
            client.control(3, struct.pack(">II", stream, 5))
        client.control(6, struct.pack(">I", 1))
        await client.until(lambda: client.pings)
        (line,) = server._connections
        assert line.handler.conversation._pairs == {}  # type: ignore[attr-defined]


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", None])
async def test_old_websocket_form(server: StreamServer, protocol: str | None) -> None:
    from base64 import b64decode, b64encode

    base64 = "base64" in (protocol or "")
    async with echo_server() as port:
        dead = unused_port()
        url = server.offer_port_forward(dial, ports=[port, dead], pod_label=LABEL)
        client = await WebSocketClient.connect(url, *([protocol] if protocol else []))

        def channel(number: int) -> bytes:
            if not base64:
                return client.channel(number)
            texts = [m for m in client.messages if isinstance(m, str)]
            return b"".join(b64decode(m[1:]) for m in texts if m[0] == str(number))

        await client.until(lambda: len(channel(3)) > 2)
        client.send("0" + b64encode(b"hello").decode() if base64 else b"\x00hello")
        await client.until(lambda: channel(0).endswith(b"hello"))
        assert channel(0) == struct.pack("<H", port) + b"hello"
        assert channel(1) == struct.pack("<H", port)
        assert channel(2) == struct.pack("<H", dead)
        assert channel(3).startswith(struct.pack("<H", dead) + b"error forwarding port")
        await client.close()


async def test_old_websocket_form_ends_with_its_connections(server: StreamServer) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    url = server.offer_port_forward(dial, ports=[port], pod_label=LABEL)
    client = await WebSocketClient.connect(url, "v4.channel.k8s.io")
    accepted, _ = await asyncio.to_thread(listener.accept)
    accepted.sendall(b"only this")
    accepted.close()
    await client.until_closed()
    assert client.channel(0) == struct.pack("<H", port) + b"only this"
    assert client.close_code == 1000
    await client.close()
    listener.close()


async def test_a_websocket_without_ports_is_told_so(server: StreamServer) -> None:
    client = await WebSocketClient.connect(server.offer_port_forward(dial, pod_label=LABEL))
    await client.until_closed()
    assert client.close_code == 1008
    await client.close()


class TunnelWriter:
    """Puts what a `SpdyClient` writes into messages, cut where no frame ends."""

    def __init__(self, websocket: WebSocketClient) -> None:
        self._websocket = websocket

    def write(self, frame: bytes) -> None:
        for at in range(0, len(frame), 7):
            self._websocket.send(frame[at : at + 7])


async def test_spdy_inside_a_websocket(server: StreamServer) -> None:
    url = server.offer_port_forward(dial, pod_label=LABEL)
    websocket = await WebSocketClient.connect(url, "SPDY/3.1+portforward.k8s.io")
    assert websocket.subprotocol == "SPDY/3.1+portforward.k8s.io"
    reader = asyncio.StreamReader()
    client = SpdyClient(reader, TunnelWriter(websocket))  # type: ignore[arg-type]
    client._task = asyncio.create_task(client._read())

    async def pump() -> None:
        fed = 0
        while not websocket.closed:
            websocket._changed.clear()
            for message in websocket.messages[fed:]:
                assert isinstance(message, bytes)
                reader.feed_data(message)
            fed = len(websocket.messages)
            await websocket._changed.wait()

    pumping = asyncio.create_task(pump())
    async with echo_server() as port:
        error, data = await pair(client, port)
        client.send(data, b"through the tunnel ", end=True)
        await client.until(lambda: {error, data} <= client.ended)
        assert client.text(data) == b"through the tunnel bye"
        client.control(7, struct.pack(">II", 0, 0))
        await until(lambda: websocket.closed)
        assert websocket.close_code == 1000
    pumping.cancel()
    client._task.cancel()
    await asyncio.wait([pumping, client._task])
    await websocket.close()

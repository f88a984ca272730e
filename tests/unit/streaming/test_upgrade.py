"""The request before the streams: tokens, headers, protocols, TLS, and what is no request at all."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phantom_cri.errors import FailedPrecondition, ResourceExhausted, Unavailable
from phantom_cri.streaming import StreamServer
from phantom_cri.streaming.pending import MAX_WAITING
from phantom_cri.streaming.server import MAX_UNASKED
from tests.unit.streaming.conftest import PendingStream
from tests.unit.streaming.sessions import Opener, dial, until
from tests.unit.streaming.spdy_client import SpdyClient
from tests.unit.streaming.websocket_client import WebSocketClient

V4 = "v4.channel.k8s.io"


async def say(url: str, request: bytes) -> bytes:
    """All that the server answers to `request`."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_url_is_good_once(pending: PendingStream, method: str) -> None:
    url, _ = pending("true")
    client = await SpdyClient.connect(url, V4, method=method)
    assert client.status == 101
    await client.close()
    again = await SpdyClient.connect(url, V4, method=method)
    assert again.status == 404
    await again.close()


async def test_a_url_is_good_for_a_minute(pending: PendingStream, monkeypatch: pytest.MonkeyPatch) -> None:
    young, _ = pending("true")
    old, _ = pending("true")
    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now + 59)
    client = await SpdyClient.connect(young, V4)
    assert client.status == 101
    await client.close()
    monkeypatch.setattr("time.monotonic", lambda: now + 61)
    client = await SpdyClient.connect(old, V4)
    assert client.status == 404
    await client.close()


async def test_a_thousand_urls_may_wait(pending: PendingStream, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(MAX_WAITING):
        pending("true")
    with pytest.raises(ResourceExhausted, match="1000 URLs"):
        pending("true")
    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now + 61)
    pending("true")


@pytest.mark.parametrize(
    "path", ["/", "/exec", "/exec/", "/exec/nonsense", "/attach/TOKEN", "/exec/TOKEN/", "//exec/TOKEN"]
)
async def test_other_paths_lead_nowhere(pending: PendingStream, path: str) -> None:
    url, opener = pending("true")
    token = url.rsplit("/", 1)[1]
    base = url[: url.index("/exec/")]
    client = await SpdyClient.connect(base + path.replace("TOKEN", token), V4)
    assert client.status == 404
    assert opener.calls == 0
    await client.close()


async def test_the_query_says_nothing(pending: PendingStream) -> None:
    url, _ = pending("echo", "as asked", stderr=False)
    client = await SpdyClient.connect(f"{url}?command=rm&command=-rf&input=1&tty=1&error=1", V4)
    await client.stdio("error", "stdout")
    await client.until_closed()
    assert client.text("stdout") == b"as asked\n"
    await client.close()


@pytest.mark.parametrize(
    ("method", "headers", "protocols", "status"),
    [
        ("PUT", {}, [V4], 405),
        ("DELETE", {}, [V4], 405),
        ("GET", {"Upgrade": "h2c"}, [V4], 400),
        ("GET", {"Connection": "close"}, [V4], 400),
        ("GET", {}, [], 400),
        ("POST", {"Upgrade": "websocket"}, [V4], 400),
        ("GET", {"Upgrade": "websocket"}, [], 400),
        ("GET", {}, ["v9.channel.k8s.io", "portforward.k8s.io"], 403),
    ],
)
async def test_requests_that_are_refused(
    pending: PendingStream, method: str, headers: dict[str, str], protocols: list[str], status: int
) -> None:
    url, opener = pending("true")
    client = await SpdyClient.connect(url, *protocols, method=method, headers=headers)
    assert client.status == status
    assert client.body.endswith(b"\n")
    assert int(client.headers["content-length"]) == len(client.body)
    assert opener.calls == 0
    await client.close()


async def test_what_is_spoken_is_told(pending: PendingStream, server: StreamServer) -> None:
    url, _ = pending("true")
    client = await SpdyClient.connect(url, "nothing.we.know")
    accepted = "x-accepted-stream-protocol-versions"
    assert client.headers[accepted] == (
        "v4.channel.k8s.io, v3.channel.k8s.io, v2.channel.k8s.io, channel.k8s.io"
    )
    await client.close()
    client = await SpdyClient.connect(server.offer_port_forward(dial, pod_label="x"), V4)
    assert (client.status, client.headers[accepted]) == (403, "portforward.k8s.io")
    await client.close()


async def test_websocket_protocols_nobody_knows(pending: PendingStream, server: StreamServer) -> None:
    for url in (pending("true")[0], server.offer_port_forward(dial, pod_label="x", ports=[1])):
        client = await WebSocketClient.connect(url, "v9.channel.k8s.io")
        assert client.status == 403
        await client.close()


async def test_header_names_and_values_in_any_case(pending: PendingStream) -> None:
    url, _ = pending("true")
    headers = {"Connection": "keep-alive, uPGRADE", "UPGRADE": "spdy/3.1"}
    request = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    path = urlsplit(url).path
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
    writer.write(
        f"GET {path} HTTP/1.1\r\nhost: a\r\n{request}x-STREAM-protocol-version: {V4}\r\n\r\n".encode()
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 101 ")
    writer.close()


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/2\r\nHost: a\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 5000, b"431"),
        (b"GET /" + b"a" * 70000, b"431"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"GET /exec/%00 HTTP/1.1\r\nHost: \xff\r\n\r\n", b"404"),
    ],
)
async def test_malformed_requests_are_told_so(
    pending: PendingStream, request_text: bytes, status: bytes
) -> None:
    url, _ = pending("true")
    answer = await say(url, request_text)
    assert answer.split(b" ")[1] == status
    assert b"Traceback" not in answer


async def test_a_host_that_is_none(pending: PendingStream) -> None:
    url, _ = pending("true")
    head = f"GET {urlsplit(url).path} HTTP/1.1\r\n".encode()
    upgrade = b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    answer = await say(
        url, head + b"Host: \xff\xfe\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" + upgrade + b"\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 400 ")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(min_size=1, max_size=300))
def test_noise_is_answered_or_waited_for(noise: bytes) -> None:
    async def scene() -> None:
        server = StreamServer()
        await server.start()
        url = server.offer_port_forward(dial, pod_label="x")
        answer = await say(url, noise + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 4") or answer.startswith(b"HTTP/1.1 5")
        await server.close()

    asyncio.run(scene())


async def test_a_crowd_that_says_nothing_makes_room_for_who_does(pending: PendingStream) -> None:
    url, _ = pending("true")
    crowd = [await asyncio.open_connection("127.0.0.1", urlsplit(url).port) for _ in range(MAX_UNASKED + 20)]
    client = await SpdyClient.connect(url, V4)
    assert client.status == 101
    await client.close()
    reader, _ = crowd[0]
    with pytest.raises(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 5) == b""
        raise ConnectionError  # FIN or RST, as the kernel likes
    for _, writer in crowd:
        writer.close()


async def test_who_says_nothing_is_closed_in_time() -> None:
    server = StreamServer(creation_timeout_s=0.2)
    await server.start()
    url = server.offer_port_forward(dial, pod_label="x")
    assert await say(url, b"GET ") == b""
    await server.close()


async def test_a_server_that_closes_tells_its_clients(pending: PendingStream, server: StreamServer) -> None:
    spdy_url, opener = pending("sleep", "1000")
    websocket_url, other = pending("sleep", "1000")
    spdy = await SpdyClient.connect(spdy_url, V4)
    await spdy.stdio("error", "stdout", "stderr")
    websocket = await WebSocketClient.connect(websocket_url, "v5.channel.k8s.io")
    forward = await SpdyClient.connect(server.offer_port_forward(dial, pod_label="x"), "portforward.k8s.io")
    await until(lambda: opener.session and other.session)
    await server.close()
    assert opener.opened.closed == other.opened.closed == 1
    await asyncio.gather(spdy.until_closed(), websocket.until_closed(), forward.until_closed())
    assert (spdy.goaway, forward.goaway, websocket.close_code) == (0, 0, 1001)
    for client in (spdy, websocket, forward):
        await client.close()
    with pytest.raises(Unavailable):
        pending("true")


async def test_an_address_that_is_taken_or_none(server: StreamServer) -> None:
    port = urlsplit(server.offer_port_forward(dial, pod_label="x")).port or 0
    with pytest.raises(FailedPrecondition, match=f"127.0.0.1:{port}"):
        await StreamServer(port=port).start()
    with pytest.raises(FailedPrecondition, match=r"192\.0\.2\.1"):
        await StreamServer("192.0.2.1").start()


@pytest.mark.parametrize(("address", "host"), [("::1", "[::1]"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]")])
async def test_urls_are_reachable(address: str, host: str) -> None:
    server = StreamServer(address)
    await server.start()
    url = server.offer_exec(Opener("true"), tty=False, stdin=False, stdout=True, stderr=False)
    assert urlsplit(url).netloc.rsplit(":", 1)[0] == host
    client = await SpdyClient.connect(url, V4)
    assert client.status == 101
    await client.close()
    await server.close()


async def test_base_url() -> None:
    server = StreamServer(base_url="https://node.example:10010/")
    await server.start()
    assert server.offer_port_forward(dial, pod_label="x").startswith(
        "https://node.example:10010/portforward/"
    )
    await server.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    folder: Path = tmp_path_factory.mktemp("tls")
    paths = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"),
            *("-out", paths[0], "-keyout", paths[1]),
        ],
        check=True,
        capture_output=True,
    )
    yield paths


async def test_tls(certificate: tuple[str, str]) -> None:
    server = StreamServer(tls=certificate)
    await server.start()
    trust = ssl.create_default_context(cafile=certificate[0])
    opener = Opener("sh", "-c", "cat; head -c 5000000 /dev/zero")
    url = server.offer_exec(opener, tty=False, stdin=True, stdout=True, stderr=False)
    assert url.startswith("https://127.0.0.1:")
    client = await SpdyClient.connect(url, V4, tls=trust)
    await client.stdio("error", "stdin", "stdout")
    client.send("stdin", b"x" * 3_000_000, end=True)
    await client.until_closed()
    assert client.text("stdout") == b"x" * 3_000_000 + bytes(5_000_000)
    assert client.result()["status"] == "Success"
    await client.close()
    url = server.offer_exec(Opener("echo", "hi"), tty=False, stdin=False, stdout=True, stderr=False)
    websocket = await WebSocketClient.connect(url, "v5.channel.k8s.io", tls=trust)
    await websocket.until_closed()
    assert websocket.channel(1) == b"hi\n"
    await websocket.close()
    await server.close()


async def test_tls_files_that_cannot_be_used(certificate: tuple[str, str], tmp_path: Path) -> None:
    for pair in ((str(tmp_path / "none.pem"), certificate[1]), (certificate[1], certificate[0])):
        with pytest.raises(FailedPrecondition, match="TLS files"):
            await StreamServer(tls=pair).start()

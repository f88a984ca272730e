"""SPDY clients that break the rules: answered rightly, cut off, and nothing of them stays."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phantom_cri.streaming import StreamServer
from phantom_cri.streaming.frames import DICTIONARY
from tests.unit.streaming.conftest import PendingStream
from tests.unit.streaming.sessions import Opener, dial, until
from tests.unit.streaming.spdy_client import SpdyClient

V4 = "v4.channel.k8s.io"


def deflated(raw: bytes) -> bytes:
    deflate = zlib.compressobj(9, zdict=DICTIONARY)
    return deflate.compress(raw) + deflate.flush(zlib.Z_SYNC_FLUSH)


def control(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">HHI", 0x8003, kind, flags << 24 | len(payload)) + payload


def syn(stream_id: int, block: bytes) -> bytes:
    return control(1, struct.pack(">IIBB", stream_id, 0, 0, 0) + block)


EMPTY = deflated(bytes(4))
ERROR_STREAM = deflated(struct.pack(">II", 1, 10) + b"streamtype" + struct.pack(">I", 5) + b"error")


@pytest.mark.parametrize(
    "frame",
    [
        syn(101, b"no zlib at all"),
        syn(101, deflated(bytes(10 << 20))),
        syn(101, deflated(struct.pack(">I", 1000))),
        syn(101, deflated(struct.pack(">II", 1, 0xFFFFFFFF))),
        syn(2, EMPTY),
        syn(0, EMPTY),
        control(1, b"short"),
        control(3, b"short"),
        control(6, b""),
        control(8, b"\x00\x00\x00\x01junk"),
        struct.pack(">HHI", 0x8002, 1, 10),
        struct.pack(">HHI", 0x8003, 1, 0xFFFFFF),
    ],
    ids=[
        "block of noise",
        "bomb",
        "more headers than there are",
        "4 GiB name",
        "even stream",
        "stream 0",
        "short SYN_STREAM",
        "short RST_STREAM",
        "empty PING",
        "HEADERS of noise",
        "SPDY/2",
        "16 MiB SYN_STREAM",
    ],
)
async def test_violations_end_the_connection_with_goaway(
    pending: PendingStream, frame: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    url, opener = pending("sleep", "1000", stdin=True)
    client = await SpdyClient.connect(url, V4)
    client.writer.write(syn(1, ERROR_STREAM))
    await client.until(lambda: 1 in client.replied)
    client.writer.write(frame)
    await client.until_closed()
    assert client.goaway == 1
    assert client.resets[1] == 5
    assert opener.calls == 0
    await client.close()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_violation_ends_a_running_session(pending: PendingStream) -> None:
    url, opener = pending("sleep", "1000")
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdout", "stderr")
    await until(lambda: opener.session)
    client.writer.write(control(3, b""))
    await client.until_closed()
    await until(lambda: opener.opened.closed == 1)
    await client.close()


async def test_stream_errors_leave_the_connection_usable(pending: PendingStream) -> None:
    url, _ = pending("cat", stdin=True)
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdin", "stdout", "stderr")
    client.send(99, b"to a stream that never was")
    await client.until(lambda: client.resets.get(99) == 2)
    client.syn(51, {"streamtype": "stdout"})
    await client.until(lambda: client.resets.get(51) == 1)
    client.syn(2 * 50 + 1, {"streamtype": "junk"})
    await client.until(lambda: 101 in client.replied)
    client.syn(77, {"streamtype": "below the last"})
    await client.until(lambda: client.resets.get(77) == 1)
    client.syn(103, {"streamtype": "one way"}, flags=2)
    await client.until(lambda: client.resets.get(103) == 1)
    client.control(4, b"\x00\x00\x00\x01" + bytes(8))
    client.control(9, struct.pack(">II", 1, 65536))
    client.control(0x1234, b"whatever")
    client.control(8, struct.pack(">I", 1) + client.syn_frame(0, {"a": "b"})[18:])
    client.control(6, struct.pack(">I", 2))
    client.control(6, struct.pack(">I", 7))
    client.send("stdin", b"works")
    await client.until(lambda: client.text("stdout") == b"works")
    assert client.pings == [7]
    client.send("stdin", b"", end=True)
    client.send("stdin", b"after the end")
    await client.until_closed()
    assert client.result()["status"] == "Success"
    await client.close()


async def test_a_flood_of_pings_that_are_never_read_is_cut_off(
    pending: PendingStream, server: StreamServer
) -> None:
    url, opener = pending("sleep", "1000")
    client = await SpdyClient.connect(url, V4, limit=1024)
    await client.stdio("error", "stdout", "stderr")
    await until(lambda: opener.session)
    client.reading.clear()
    (line,) = server._connections
    line._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pings = control(6, struct.pack(">I", 1)) * 5000
    with pytest.raises(ConnectionError):
        while True:
            client.writer.write(pings)
            await client.writer.drain()
            await asyncio.sleep(0)
    await until(lambda: opener.opened.closed == 1)
    client.reading.set()
    await client.close()


async def test_input_that_nobody_reads_is_not_kept(pending: PendingStream) -> None:
    url, opener = pending("sleep", "1000", stdin=True)
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdin", "stdout", "stderr")
    await until(lambda: opener.session)
    sent = 0

    async def push() -> None:
        nonlocal sent
        while True:
            client.send("stdin", bytes(64 << 10))
            sent += 64 << 10
            await client.writer.drain()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(push(), 0.5)
    assert sent < 24 << 20  # what kernel buffers and ours take, and no more
    client.writer.transport.abort()
    await client.close()
    # With so much in the sender's kernel no FIN comes through: the server's own end has to clean up.


async def test_a_bug_ends_one_connection_only(
    pending: PendingStream, caplog: pytest.LogCaptureFixture
) -> None:
    url, opener = pending("sleep", "1000", tty=True, stdin=True)
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdin", "stdout", "resize")
    await until(lambda: opener.session)

    def broken(width: int, height: int) -> None:
        raise RuntimeError("a bug")

    opener.opened.resize = broken  # type: ignore[method-assign]
    client.send("resize", b'{"Width":1,"Height":1}')
    await client.until_closed()
    await until(lambda: opener.opened.closed == 1)
    await client.close()
    assert "unexpected error, connection closed" in caplog.text
    url, _ = pending("true")
    other = await SpdyClient.connect(url, V4)
    assert other.status == 101
    await other.close()


async def noise_scene(kind: str, noise: list[bytes]) -> None:
    server = StreamServer(creation_timeout_s=5)
    await server.start()
    opener = Opener("cat")
    if kind == "exec":
        url = server.offer_exec(opener, tty=False, stdin=True, stdout=True, stderr=True)
        client = await SpdyClient.connect(url, V4)
        await client.stdio("error", "stdin", "stdout", "stderr")
    else:
        url = server.offer_port_forward(dial, pod_label="x")
        client = await SpdyClient.connect(url, "portforward.k8s.io")
        await client.stream(True, 0, streamtype="error", port="1", requestid="1")
    for piece in noise:
        client.writer.write(piece)
        await asyncio.sleep(0)
    await client.close()
    await server.close()
    assert opener.session is None or opener.opened.closed == 1


frames_of_noise = st.builds(
    control, st.integers(0, 10), st.binary(max_size=40), st.integers(0, 255)
) | st.builds(
    lambda stream, flags, payload: struct.pack(">II", stream, flags << 24 | len(payload)) + payload,
    st.integers(0, 12),
    st.integers(0, 255),
    st.binary(max_size=100),
)


@pytest.mark.parametrize("kind", ["exec", "portforward"])
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(noise=st.lists(frames_of_noise | st.binary(max_size=60), max_size=12))
def test_noise_leaves_nothing(kind: str, noise: list[bytes], caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    asyncio.run(noise_scene(kind, noise))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

"""Exec and attach over WebSocket in all its versions, with real processes."""

from __future__ import annotations

import asyncio
import struct
from base64 import b64decode, b64encode

import pytest
from wsproto.events import CloseConnection

from tests.unit.streaming.conftest import PendingStream
from tests.unit.streaming.sessions import until
from tests.unit.streaming.websocket_client import WebSocketClient

BINARY = ["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"]


@pytest.mark.parametrize("protocol", [*BINARY, None])
async def test_output_and_input(pending: PendingStream, protocol: str | None) -> None:
    url, opener = pending("sh", "-c", "read line; echo out $line; echo err >&2", stdin=True)
    client = await WebSocketClient.connect(url, *([protocol] if protocol else []))
    assert client.subprotocol == protocol
    await client.until(lambda: client.messages)
    assert client.messages[0] == b"\x01"  # a sign of life on the lowest channel of output
    client.send(b"\x00hi\n")
    await client.until_closed()
    assert (client.channel(1), client.channel(2)) == (b"out hi\n", b"err\n")
    assert client.close_code == 1000
    await client.close()
    await until(lambda: opener.opened.closed == 1)


@pytest.mark.parametrize("protocol", ["v4.base64.channel.k8s.io", "base64.channel.k8s.io"])
async def test_base64(pending: PendingStream, protocol: str) -> None:
    url, _ = pending("sh", "-c", "read line; echo $line; exit 4", stdin=True)
    client = await WebSocketClient.connect(url, protocol)
    text = "0" + b64encode(b"some input\n").decode()
    for at in range(0, len(text), 3):  # one message in fragments that are no multiple of four
        client.send(text[at : at + 3], last=at + 3 >= len(text))
    await client.until_closed()
    decoded = [
        (message[0], b64decode(message[1:])) for message in client.messages if isinstance(message, str)
    ]
    assert ("1", b"some input\n") in decoded
    channel, status = decoded[-1]
    assert channel == "3"
    assert (b'"message":"4"' in status) is protocol.startswith("v4")
    await client.close()


async def test_v4_status(pending: PendingStream) -> None:
    url, _ = pending("sh", "-c", "exit 9")
    client = await WebSocketClient.connect(url, "v4.channel.k8s.io")
    await client.until_closed()
    assert client.result()["details"]["causes"][0]["message"] == "9"
    await client.close()


async def test_older_versions_are_silent_on_success_and_plain_on_failure(pending: PendingStream) -> None:
    failure = b"command terminated with non-zero exit code: exit code 1"
    for command, said in (("true", b""), ("false", failure)):
        url, _ = pending(command)
        client = await WebSocketClient.connect(url, "channel.k8s.io")
        await client.until_closed()
        assert client.channel(3) == said
        await client.close()


async def test_v5_ends_the_input(pending: PendingStream) -> None:
    url, _ = pending("sh", "-c", "cat; echo over", stdin=True)
    client = await WebSocketClient.connect(url, "v5.channel.k8s.io")
    client.send(b"\x00all of it ")
    client.send(b"\xff\x00")
    await client.until_closed()
    assert client.channel(1) == b"all of it over\n"
    assert client.result()["status"] == "Success"
    await client.close()


async def test_v4_knows_no_end_of_input(pending: PendingStream) -> None:
    url, opener = pending("cat", stdin=True)
    client = await WebSocketClient.connect(url, "v4.channel.k8s.io")
    client.send(b"\xff\x00")
    client.send(b"\x00still")
    await client.until(lambda: client.channel(1) == b"still")
    assert opener.opened.input_ended == 0
    await client.close()


async def test_terminal_and_resize(pending: PendingStream) -> None:
    url, opener = pending("sh", "-c", "read line; stty size", tty=True, stdin=True)
    client = await WebSocketClient.connect(url, "v5.channel.k8s.io")
    client.send(b'\x04{"Width":100,')
    client.send(b'\x04"Height":30}\n')
    await until(lambda: opener.session and opener.opened.sizes == [(100, 30)])
    client.send(b"\x00\n")
    await client.until_closed()
    assert b"30 100" in client.channel(1)
    assert client.channel(2) == b""
    await client.close()


async def test_fragments_pings_and_what_is_of_no_use(pending: PendingStream) -> None:
    url, _ = pending("cat", stdin=True)
    client = await WebSocketClient.connect(url, "v4.channel.k8s.io")
    client.send(b"")
    client.send(b"\x07unknown channel")
    client.send(b"\x01clients have no output")
    client.send(b"\x00", last=False)
    client.ping(b"are you there")
    client.send(b"one ", last=False)
    client.send(b"two")
    await client.until(lambda: client.channel(1) == b"one two")
    assert client.pongs == [b"are you there"]
    await client.close()


async def test_big_messages_both_ways(pending: PendingStream) -> None:
    url, _ = pending("cat", stdin=True)
    client = await WebSocketClient.connect(url, "v5.channel.k8s.io")
    whole = bytes(range(256)) * 12_345
    client.send(b"\x00" + whole)
    client.send(b"\xff\x00")
    await client.until_closed()
    assert client.channel(1) == whole
    await client.close()


async def test_a_client_that_says_goodbye_ends_its_session(pending: PendingStream) -> None:
    url, opener = pending("sleep", "1000")
    client = await WebSocketClient.connect(url, "v5.channel.k8s.io")
    await until(lambda: opener.session)
    client.writer.write(client.protocol.send(CloseConnection(code=1000)))
    await client.until_closed()
    assert client.close_code == 1000
    await until(lambda: opener.opened.closed == 1)
    await client.close()


async def test_malformed_base64_is_told(pending: PendingStream) -> None:
    url, opener = pending("cat", stdin=True)
    client = await WebSocketClient.connect(url, "v4.base64.channel.k8s.io")
    await until(lambda: opener.session)
    client.send("0!!!!")
    await client.until_closed()
    assert client.close_code == 1007
    await until(lambda: opener.opened.closed == 1)
    await client.close()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x82\x05\x00abcd", 1002),
        (b"\xff\x80\x00\x00\x00\x00", 1002),
        (b"\x80\x81\x00\x00\x00\x00a", 1002),
        (b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", 1002),
        (b"\x81\x82\x00\x00\x00\x00\xff\xff", 1007),
        (b"\x88\x81\x00\x00\x00\x00a", 1002),
    ],
    ids=["unmasked", "reserved bits", "continues nothing", "2^64-1 bytes", "not UTF-8", "short close"],
)
async def test_malformed_frames_are_answered_with_their_code(
    pending: PendingStream, frame: bytes, code: int
) -> None:
    url, opener = pending("sleep", "1000", stdin=True)
    client = await WebSocketClient.connect(url, "v5.channel.k8s.io")
    await until(lambda: opener.session)
    client.writer.write(frame)
    await client.until_closed()
    assert client.close_code == code
    await until(lambda: opener.opened.closed == 1)
    await client.close()


async def test_a_flood_of_pings_that_are_never_read_is_cut_off(pending: PendingStream) -> None:
    url, opener = pending("sleep", "1000")
    client = await WebSocketClient.connect(url, "v5.channel.k8s.io")
    await until(lambda: opener.session)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    ping = struct.pack(">BBI", 0x89, 0x80 | 125, 0) + bytes(125)
    with pytest.raises(ConnectionError):
        while True:
            client.writer.write(ping * 500)
            await client.writer.drain()
            await asyncio.sleep(0)
    await until(lambda: opener.opened.closed == 1)
    await client.close()

"""Exec and attach over SPDY, as the kubelet and crictl speak it, with real processes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import struct

import pytest

from phantom_cri.errors import NotFound
from phantom_cri.streaming import StreamServer
from tests.unit.streaming.conftest import PendingStream
from tests.unit.streaming.sessions import Opener, until
from tests.unit.streaming.spdy_client import SpdyClient

V4 = "v4.channel.k8s.io"


async def test_output_exit_code_and_goodbye(pending: PendingStream) -> None:
    url, opener = pending("sh", "-c", "echo out; echo err >&2; exit 3")
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdout", "stderr")
    await client.until_closed()
    assert client.headers["x-stream-protocol-version"] == V4
    assert (client.text("stdout"), client.text("stderr")) == (b"out\n", b"err\n")
    assert client.result()["reason"] == "NonZeroExitCode"
    assert client.result()["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
    assert client.ended == set(client.names.values())
    assert client.goaway == 0
    await client.close()
    await until(lambda: opener.opened.closed == 1)


async def test_success(pending: PendingStream) -> None:
    url, _ = pending("true")
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdout", "stderr")
    await client.until_closed()
    assert client.result() == {"metadata": {}, "status": "Success"}
    await client.close()


async def test_a_killed_process_is_128_and_its_signal(pending: PendingStream) -> None:
    url, _ = pending("sh", "-c", "kill -KILL $$")
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdout", "stderr")
    await client.until_closed()
    assert client.result()["details"]["causes"][0]["message"] == "137"
    await client.close()


async def test_input_ends_by_half_close(pending: PendingStream) -> None:
    url, opener = pending("sh", "-c", "cat; echo done", stdin=True)
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdin", "stdout", "stderr")
    client.send("stdin", b"one ")
    await client.until(lambda: client.text("stdout") == b"one ")
    client.send("stdin", b"two ", end=True)
    await client.until_closed()
    assert client.text("stdout") == b"one two done\n"
    assert opener.opened.input_ended == 1
    await client.close()


async def test_input_sent_before_the_process_runs_is_kept(pending: PendingStream) -> None:
    url, _ = pending("cat", stdin=True)
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdin")
    client.send("stdin", b"early", end=True)
    await client.stdio("stdout", "stderr")
    await client.until_closed()
    assert client.text("stdout") == b"early"
    await client.close()


async def test_bytes_behind_the_request_belong_to_spdy(pending: PendingStream) -> None:
    url, _ = pending("echo", "hello", stderr=False)
    scratch = SpdyClient(None, None)  # type: ignore[arg-type]
    early = scratch.syn_frame(1, {"streamtype": "error"}) + scratch.syn_frame(3, {"streamtype": "stdout"})
    client = await SpdyClient.connect(url, V4, early=early)
    await client.until_closed()
    assert bytes(client.data[3]) == b"hello\n"
    await client.close()


async def test_nothing_is_opened_before_all_streams_are_there(pending: PendingStream) -> None:
    url, opener = pending("true")
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdout")
    client.control(6, struct.pack(">I", 1))
    await client.until(lambda: client.pings == [1])
    assert opener.calls == 0
    await client.stdio("stderr")
    await client.until_closed()
    assert opener.calls == 1
    await client.close()


async def test_terminal_and_its_sizes(pending: PendingStream) -> None:
    url, opener = pending("sh", "-c", "read line; stty size; echo $line", tty=True, stdin=True)
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdin", "stdout", "resize")
    client.send("resize", b'{"Width":80,"Hei')
    client.send("resize", b'ght":24}\n{"Width":0,"Height":5}\n{"Width":132,"Height":50}')
    await until(lambda: opener.session and opener.opened.sizes[-1:] == [(132, 50)])
    assert (0, 5) not in opener.opened.sizes
    client.send("stdin", b"hi\n")
    await client.until_closed()
    assert b"50 132\r\nhi\r\n" in client.text("stdout")
    assert client.result()["status"] == "Success"
    await client.close()


@pytest.mark.parametrize("nonsense", [b"x" * 5000, b"[]{}1 null", b'{"Width":"a","Height":-3}', b"[" * 4000])
async def test_sizes_that_are_none_are_ignored(pending: PendingStream, nonsense: bytes) -> None:
    url, opener = pending("cat", tty=True, stdin=True)
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdin", "stdout", "resize")
    client.send("resize", nonsense)
    client.send("stdin", b"still here\n")
    await client.until(lambda: b"still here" in client.text("stdout"))
    assert opener.opened.sizes == []
    await client.close()


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("v3.channel.k8s.io", b"command terminated with non-zero exit code"),
        ("v2.channel.k8s.io", b"command terminated with non-zero exit code"),
        ("channel.k8s.io", b"command terminated with non-zero exit code"),
    ],
)
async def test_older_versions_tell_failures_in_words(
    pending: PendingStream, protocol: str, expected: bytes
) -> None:
    url, _ = pending("false")
    client = await SpdyClient.connect(url, protocol)
    await client.stdio("error", "stdout", "stderr")
    await client.until_closed()
    assert client.text("error").startswith(expected)
    await client.close()


async def test_older_versions_are_silent_on_success_and_have_no_resize(pending: PendingStream) -> None:
    url, _ = pending("echo", "hi", tty=True, stdin=True)
    client = await SpdyClient.connect(url, "v2.channel.k8s.io")
    await client.stdio("error", "stdin", "stdout")
    await client.until_closed()
    assert (client.text("error"), client.text("stdout")) == (b"", b"hi\r\n")
    await client.close()


async def test_the_clients_first_known_version_is_chosen(pending: PendingStream) -> None:
    url, _ = pending("true")
    client = await SpdyClient.connect(url, "v9.channel.k8s.io", "V3.channel.k8s.io,v4.channel.k8s.io")
    assert client.headers["x-stream-protocol-version"] == "v3.channel.k8s.io"
    await client.close()


async def test_what_cannot_be_opened_is_told(server: StreamServer) -> None:
    async def refuse() -> None:
        raise NotFound("container 'x': unknown")

    url = server.offer_exec(refuse, tty=False, stdin=False, stdout=True, stderr=False)  # type: ignore[arg-type]
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdout")
    await client.until_closed()
    assert client.result()["reason"] == "InternalError"
    assert "container 'x': unknown" in client.result()["message"]
    await client.close()


async def test_attach_ends_with_success_whatever_the_code(pending: PendingStream) -> None:
    url, _ = pending("sh", "-c", "echo last words; exit 7", attach=True)
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdout", "stderr")
    await client.until_closed()
    assert client.text("stdout") == b"last words\n"
    assert client.result()["status"] == "Success"
    await client.close()


async def test_a_client_that_leaves_ends_its_session(pending: PendingStream) -> None:
    url, opener = pending("sleep", "1000")
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdout", "stderr")
    await until(lambda: opener.session)
    await client.close()
    await until(lambda: opener.opened.closed == 1)


async def test_a_client_that_gives_up_all_streams_ends_its_session(pending: PendingStream) -> None:
    url, opener = pending("sleep", "1000")
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdout", "stderr")
    await until(lambda: opener.session)
    for stream_id in client.names.values():
        client.control(3, struct.pack(">II", stream_id, 5))
    await until(lambda: opener.opened.closed == 1)
    await client.close()


async def test_a_client_that_leaves_while_its_input_is_not_read(
    pending: PendingStream, server: StreamServer
) -> None:
    """The line is not read then: a disconnect has to be noticed in another way."""
    url, opener = pending("sleep", "1000", stdin=True)
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdin", "stdout", "stderr")
    await until(lambda: opener.session)
    (line,) = server._connections
    while not line._held:
        client.send("stdin", bytes(8 << 10))
        await asyncio.sleep(0.001)
    await client.close()
    await until(lambda: opener.opened.closed == 1)


async def test_a_process_that_closes_its_input_does_not_hold_up_the_client(pending: PendingStream) -> None:
    url, _ = pending("sh", "-c", "exec <&-; sleep 0.2; echo over", stdin=True)
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdin", "stdout", "stderr")
    for _ in range(300):
        client.send("stdin", bytes(32 << 10))
    await client.until_closed()
    assert client.text("stdout") == b"over\n"
    await client.close()


async def test_a_slow_client_gets_everything_and_holds_up_only_itself(pending: PendingStream) -> None:
    size = 30 << 20
    url, opener = pending("head", "-c", str(size), "/dev/zero")
    client = await SpdyClient.connect(url, V4, limit=4096)
    await client.stdio("error", "stdout", "stderr")
    await until(lambda: opener.session)
    client.reading.clear()
    quick_url, _ = pending("echo", "quick")
    quick = await SpdyClient.connect(quick_url, V4)
    await quick.stdio("error", "stdout", "stderr")
    await quick.until_closed()
    assert quick.text("stdout") == b"quick\n"
    await quick.close()
    assert opener.opened.process.poll() is None  # it waits for the client
    client.reading.set()
    await client.until_closed()
    assert len(client.text("stdout")) == size
    assert client.result()["status"] == "Success"
    await client.close()


async def test_much_input_arrives_whole(pending: PendingStream) -> None:
    url, _ = pending("sha256sum", stdin=True)
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdin", "stdout", "stderr")
    whole = os.urandom(1 << 20) * 20
    for at in range(0, len(whole), 1_000_003):
        client.send("stdin", whole[at : at + 1_000_003])
        await client.writer.drain()
    client.send("stdin", b"", end=True)
    await client.until_closed()
    assert client.text("stdout").split()[0].decode() == hashlib.sha256(whole).hexdigest()
    await client.close()


async def test_output_is_not_lost_when_the_client_keeps_sending(pending: PendingStream) -> None:
    """Closing a socket with unread input resets it, and what the client has not read is lost."""
    url, _ = pending("sh", "-c", "head -c 3000000 /dev/zero", stdin=True)
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdin", "stdout", "stderr")
    client.reading.clear()
    for _ in range(100):
        client.send("stdin", bytes(32 << 10))
        await asyncio.sleep(0)
    client.reading.set()
    await client.until(lambda: client.goaway is not None)
    assert len(client.text("stdout")) == 3_000_000
    assert client.result()["status"] == "Success"
    await client.close()


async def test_incomplete_streams_are_dropped_in_time() -> None:
    server = StreamServer(creation_timeout_s=0.2)
    await server.start()
    url = server.offer_exec(lambda: None, tty=False, stdin=False, stdout=True, stderr=False)  # type: ignore[arg-type, return-value]
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error")
    await client.until_closed()
    assert client.goaway == 0
    await client.close()
    await server.close()


async def test_an_idle_connection_is_closed() -> None:
    server = StreamServer(idle_timeout_s=0.3)
    await server.start()
    opener = Opener("sleep", "1000")
    url = server.offer_exec(opener, tty=False, stdin=False, stdout=True, stderr=False)
    client = await SpdyClient.connect(url, V4)
    await client.stdio("error", "stdout")
    for number in range(1, 13, 2):
        client.control(6, struct.pack(">I", number))
        await asyncio.sleep(0.1)
    assert not client.closed and opener.opened.closed == 0
    await client.until_closed()
    await until(lambda: opener.opened.closed == 1)
    await client.close()
    await server.close()

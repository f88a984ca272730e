"""ttrpc's server against hostile and ordinary clients on a real socket; frames are written by hand."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from phantom_cri.api.containerd import task_pb2 as task
from phantom_cri.api.containerd import ttrpc_pb2 as pb
from phantom_cri.errors import NotFound, Unavailable, Unimplemented
from phantom_cri.rpc.ttrpc_client import TtrpcClient
from phantom_cri.rpc.ttrpc_server import Call, TtrpcServer
from phantom_cri.telemetry.metrics import Metrics

TASK = "containerd.task.v3.Task"
HEAD = struct.Struct(">IIBB")


class Servicer:
    """Answers State, never answers Wait, fails in two ways."""

    def __init__(self) -> None:
        self.waits_cancelled = asyncio.Event()

    async def State(self, request: task.StateRequest, call: Call) -> task.StateResponse:
        return task.StateResponse(id=request.id, bundle=call.metadata.get("where", ""))

    async def Wait(self, request: task.WaitRequest, call: Call) -> task.WaitResponse:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.waits_cancelled.set()
            raise
        raise AssertionError

    async def Start(self, request: task.StartRequest, call: Call) -> task.StartResponse:
        raise NotFound(f"task {request.id}: there is none")

    async def Pids(self, request: task.PidsRequest, call: Call) -> task.PidsResponse:
        raise ValueError("hunter2")


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(
        self, stream: int, body: bytes, kind: int = 1, flags: int = 0, length: int | None = None
    ) -> None:
        self.writer.write(HEAD.pack(length or len(body), stream, kind, flags) + body)

    def ask(self, stream: int, method: str, payload: bytes = b"", service: str = TASK, ns: int = 0) -> None:
        request = pb.Request(service=service, method=method, payload=payload, timeout_nano=ns)
        request.metadata.add(key="where", value="here")
        self.send(stream, request.SerializeToString())

    async def answer(self) -> tuple[int, pb.Response]:
        async with asyncio.timeout(5):
            length, stream, kind, flags = HEAD.unpack(await self.reader.readexactly(HEAD.size))
            assert (kind, flags) == (2, 0)
            return stream, pb.Response.FromString(await self.reader.readexactly(length))

    async def hung_up(self) -> bool:
        async with asyncio.timeout(5):
            return await self.reader.read() == b""


@pytest.fixture
def servicer() -> Servicer:
    return Servicer()


@pytest.fixture
async def path(servicer: Servicer, tmp_path: Path) -> AsyncIterator[Path]:
    descriptor = task.DESCRIPTOR.services_by_name["Task"]
    server = TtrpcServer(tmp_path / "s", {TASK: (descriptor, servicer)}, Metrics("test"))
    await server.listen()
    yield server.path
    await server.close(keep=False)


@pytest.fixture
async def client(path: Path) -> AsyncIterator[Client]:
    made = Client(*await asyncio.open_unix_connection(path))
    yield made
    made.writer.close()


async def test_an_unknown_method_and_service_are_unimplemented(client: Client) -> None:
    client.ask(1, "Dance")
    assert (await client.answer())[1].status.code == 12
    client.ask(3, "State", service="containerd.task.v9.Task")
    assert (await client.answer())[1].status.code == 12
    client.ask(5, "Checkpoint")  # of the service, and the servicer has none
    stream, response = await client.answer()
    assert (stream, response.status.code) == (5, 12)
    assert "containerd.task.v3.Task.Checkpoint" in response.status.message


async def test_a_frame_that_is_too_large_is_thrown_away_and_the_next_is_served(client: Client) -> None:
    client.send(1, b"x" * ((4 << 20) + 1))
    stream, response = await client.answer()
    assert (stream, response.status.code) == (1, 8)
    client.ask(3, "State")
    assert (await client.answer())[1].status.code == 0


async def test_garbage_is_refused(client: Client) -> None:
    client.send(1, b"\xff\xff\xff")
    assert (await client.answer())[1].status.code == 3
    client.ask(3, "State", b"\xff\xff\xff")
    stream, response = await client.answer()
    assert (stream, response.status.code) == (3, 3)
    assert "containerd.task.v3.StateRequest" in response.status.message


async def test_a_frame_that_is_no_request_ends_the_connection(client: Client) -> None:
    client.send(1, b"x", kind=3)
    assert await client.hung_up()


async def test_a_client_that_leaves_within_a_frame_disturbs_nobody(path: Path, client: Client) -> None:
    hasty = Client(*await asyncio.open_unix_connection(path))
    hasty.send(1, b"half", length=100)
    hasty.writer.close()
    client.ask(1, "State")
    assert (await client.answer())[1].status.code == 0


@pytest.mark.parametrize("streams", [(2,), (3, 3), (3, 1)])
async def test_stream_ids_are_odd_and_rise(client: Client, streams: tuple[int, ...]) -> None:
    for stream in streams:
        client.ask(stream, "State")
    answers = [await client.answer() for _ in streams]
    assert [response.status.code for _, response in answers][-1] == 3


async def test_a_stream_is_refused(client: Client) -> None:
    client.send(1, pb.Request(service=TASK, method="State").SerializeToString(), flags=2)
    assert (await client.answer())[1].status.code == 12


async def test_an_error_has_its_code_and_an_unexpected_one_hides_its_text(client: Client) -> None:
    client.ask(1, "Start", task.StartRequest(id="a").SerializeToString())
    response = (await client.answer())[1]
    assert (response.status.code, response.status.message) == (5, "task a: there is none")
    client.ask(3, "Pids")
    response = (await client.answer())[1]
    assert response.status.code == 13
    assert "hunter2" not in response.status.message


async def test_a_call_has_the_time_that_its_client_gives(client: Client) -> None:
    client.ask(1, "Wait", ns=10_000_000)
    assert (await client.answer())[1].status.code == 4


async def test_a_long_call_holds_up_no_other_and_ends_with_its_client(
    client: Client, servicer: Servicer
) -> None:
    client.ask(1, "Wait")
    client.ask(3, "State", task.StateRequest(id="b").SerializeToString())
    stream, response = await client.answer()
    assert stream == 3
    found = task.StateResponse.FromString(response.payload)
    assert (found.id, found.bundle) == ("b", "here")
    client.writer.close()
    async with asyncio.timeout(5):
        await servicer.waits_cancelled.wait()


async def test_the_client_calls_and_connects_again(path: Path, tmp_path: Path) -> None:
    caller = TtrpcClient(str(path))
    request = task.StateRequest(id="c")
    for _ in range(2):
        payload = await caller.call(TASK, "State", request, 5)
        assert task.StateResponse.FromString(payload).id == "c"
    with pytest.raises(Unavailable, match="there is none"):
        await caller.call(TASK, "Start", task.StartRequest(id="c"), 5)
    with pytest.raises(Unimplemented):
        await caller.call(TASK, "Dance", request, 5)
    with pytest.raises(Unavailable):
        await caller.call(TASK, "Wait", task.WaitRequest(), 0.01)
    await caller.call(TASK, "State", request, 5)
    caller.close()
    with pytest.raises(Unavailable):
        await TtrpcClient(str(tmp_path / "nobody")).call(TASK, "State", request, 1)


async def test_the_socket_is_its_owners_and_goes(servicer: Servicer, tmp_path: Path) -> None:
    path = tmp_path / "own"
    server = TtrpcServer(path, {}, Metrics("test"))
    await server.listen()
    assert path.stat().st_mode & 0o777 == 0o600
    await server.close(keep=False)
    assert not path.exists()

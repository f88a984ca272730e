"""Exec, Attach and PortForward on the wire: what is refused before anything is offered."""

from __future__ import annotations

import pytest

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.cri.runtime_service import RuntimeService
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import Streams
from tests.unit.cri.fake_verbs import CONTAINER_ID, SANDBOX_ID, FakeRuntime


@pytest.fixture
def service() -> RuntimeService:
    return RuntimeService(FakeRuntime())


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"container_id": ""}, "container_id"),
        ({"cmd": []}, "cmd"),
        ({"cmd": ["a\0b"]}, "cmd: contains a NUL"),
        ({"tty": True, "stderr": True}, "tty and stderr"),
        ({"stdout": False}, "one of them must be true"),
        ({"stdout": False, "tty": True}, "one of them must be true"),
    ],
)
async def test_what_exec_refuses(service: RuntimeService, fields: dict[str, object], names: str) -> None:
    made = {"container_id": CONTAINER_ID, "cmd": ["sh"], "stdout": True, **fields}
    with pytest.raises(InvalidArgument, match=names):
        await service.Exec(pb.ExecRequest(**made))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        (pb.AttachRequest(stdout=True), "container_id"),
        (pb.AttachRequest(container_id=CONTAINER_ID, tty=True, stdout=True, stderr=True), "tty and stderr"),
        (pb.AttachRequest(container_id=CONTAINER_ID), "one of them must be true"),
    ],
)
async def test_what_attach_refuses(service: RuntimeService, request_: pb.AttachRequest, names: str) -> None:
    with pytest.raises(InvalidArgument, match=names):
        await service.Attach(request_)


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        (pb.PortForwardRequest(), "pod_sandbox_id"),
        (pb.PortForwardRequest(pod_sandbox_id=SANDBOX_ID, port=[80, 0]), r"port\[1\]: 0 is not in 1…65535"),
        (pb.PortForwardRequest(pod_sandbox_id=SANDBOX_ID, port=[65536]), r"port\[0\]: 65536"),
    ],
)
async def test_what_port_forward_refuses(
    service: RuntimeService, request_: pb.PortForwardRequest, names: str
) -> None:
    with pytest.raises(InvalidArgument, match=names):
        await service.PortForward(request_)


async def test_the_url_is_what_the_verbs_offer(service: RuntimeService) -> None:
    request = pb.ExecRequest(container_id=CONTAINER_ID, cmd=["sh", "-c"], tty=True, stdin=True, stdout=True)
    streams = Streams(tty=True, stdin=True, stdout=True)
    assert (await service.Exec(request)).url == f"http://exec/{CONTAINER_ID}/sh -c/{streams}"
    attached = await service.Attach(pb.AttachRequest(container_id=CONTAINER_ID, stderr=True))
    assert attached.url == f"http://attach/{CONTAINER_ID}/{Streams(stderr=True)}"
    forwarded = await service.PortForward(pb.PortForwardRequest(pod_sandbox_id=SANDBOX_ID, port=[1, 65535]))
    assert forwarded.url == f"http://port_forward/{SANDBOX_ID}/[1, 65535]"

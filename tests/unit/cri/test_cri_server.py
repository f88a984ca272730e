from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import cast

import grpc
import grpc.aio
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from phantom_cri import errors
from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.api.cri.v1.api_pb2_grpc import ImageServiceStub, RuntimeServiceStub
from phantom_cri.api.phantom.v1 import node_pb2
from phantom_cri.api.phantom.v1.node_pb2_grpc import NodeStub
from phantom_cri.cri.chunks import chunks
from phantom_cri.cri.node_service import CheckShape, NodeVerbs
from phantom_cri.cri.server import cri_server
from phantom_cri.errors import AlreadyExists, ConfigError, FailedPrecondition, InvalidArgument, PhantomError
from phantom_cri.model import Image, SandboxConfig, SandboxMetadata, SandboxRecord
from phantom_cri.rpc.calls import GRPC_CODES, Calls, status_text
from phantom_cri.rpc.server import MESSAGE_LIMIT, make_way
from phantom_cri.telemetry.logs import fields_of
from phantom_cri.telemetry.metrics import Metrics
from phantom_cri.telemetry.tracing import NoTracing, Tracing
from tests.unit.cri.fake_verbs import CONTAINER_ID, IMAGE_ID, SANDBOX_ID, FakeImages, FakeRuntime

LIMITS = [("grpc.max_receive_message_length", MESSAGE_LIMIT), ("grpc.max_send_message_length", MESSAGE_LIMIT)]


class Wire:
    """A server over fakes and a client of it."""

    def __init__(self, path: Path) -> None:
        self.verbs, self.image_verbs, self.metrics = FakeRuntime(), FakeImages(), Metrics("0.1.0")
        calls = Calls(self.metrics, NoTracing())
        self.server = cri_server(path, self.verbs, self.image_verbs, calls, grace_s=0)

    def connect(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.runtime, self.images = RuntimeServiceStub(channel), ImageServiceStub(channel)

    async def exec(self, *command: str, seconds: float | None = None) -> pb.ExecSyncResponse:
        request = pb.ExecSyncRequest(container_id=CONTAINER_ID, cmd=command)
        return await self.runtime.ExecSync(request, timeout=seconds)


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[Wire]:
    path = tmp_path / "run/cri.sock"
    wire = Wire(path)
    async with wire.server, grpc.aio.insecure_channel(f"unix:{path}", options=LIMITS) as channel:
        wire.connect(channel)
        yield wire


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


def pod_config(name: str = "pod", **fields: object) -> pb.PodSandboxConfig:
    return pb.PodSandboxConfig(metadata=pb.PodSandboxMetadata(name=name), **fields)  # type: ignore[arg-type]


async def test_version_answers_all_four(wire: Wire) -> None:
    answer = await wire.runtime.Version(pb.VersionRequest())
    assert (answer.version, answer.runtime_api_version) == ("0.1.0", "v1")
    assert (answer.runtime_name, answer.runtime_version) == ("phantom", "0.1.0")


async def test_status_and_runtime_config(wire: Wire) -> None:
    answer = await wire.runtime.Status(pb.StatusRequest(verbose=True))
    assert [(one.type, one.status, one.reason) for one in answer.status.conditions] == [
        ("RuntimeReady", True, ""),
        ("NetworkReady", False, "NoBridge"),
    ]
    assert [(one.name, one.features.user_namespaces) for one in answer.runtime_handlers] == [
        ("", False),
        ("strict", True),
    ]
    assert answer.features.supplemental_groups_policy
    assert json.loads(answer.info["config"]) == {"stateDir": "/run/phantom"}
    config = await wire.runtime.RuntimeConfig(pb.RuntimeConfigRequest())
    assert config.HasField("linux") and config.linux.cgroup_driver == pb.CGROUPFS


async def test_a_pod_from_run_to_remove(wire: Wire) -> None:
    request = pb.RunPodSandboxRequest(config=pod_config(labels={"a": "b"}), runtime_handler="strict")
    sandbox_id = (await wire.runtime.RunPodSandbox(request)).pod_sandbox_id
    status = await wire.runtime.PodSandboxStatus(pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id))
    assert status.status.network.ip == "10.0.0.2" and status.status.runtime_handler == "strict"
    assert not status.info and status.timestamp > 0
    await wire.runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))
    wanted = pb.PodSandboxFilter(
        state=pb.PodSandboxStateValue(state=pb.SANDBOX_NOTREADY), label_selector={"a": "b"}
    )
    (item,) = (await wire.runtime.ListPodSandbox(pb.ListPodSandboxRequest(filter=wanted))).items
    assert item.id == sandbox_id and item.state == pb.SANDBOX_NOTREADY
    wanted.state.state = pb.SANDBOX_READY
    assert not (await wire.runtime.ListPodSandbox(pb.ListPodSandboxRequest(filter=wanted))).items
    for _ in range(2):
        await wire.runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id))
    assert not (await wire.runtime.ListPodSandbox(pb.ListPodSandboxRequest())).items


async def test_a_container_from_create_to_remove(wire: Wire) -> None:
    config = pb.ContainerConfig(metadata=pb.ContainerMetadata(name="c"), image=pb.ImageSpec(image="i"))
    create = pb.CreateContainerRequest(pod_sandbox_id=SANDBOX_ID, config=config, sandbox_config=pod_config())
    container_id = (await wire.runtime.CreateContainer(create)).container_id
    await wire.runtime.StartContainer(pb.StartContainerRequest(container_id=container_id))
    resources = pb.LinuxContainerResources(cpu_shares=512)
    await wire.runtime.UpdateContainerResources(
        pb.UpdateContainerResourcesRequest(container_id=container_id, linux=resources)
    )
    status = await wire.runtime.ContainerStatus(
        pb.ContainerStatusRequest(container_id=container_id, verbose=True)
    )
    assert status.status.state == pb.CONTAINER_RUNNING and status.status.resources.linux.cpu_shares == 512
    assert json.loads(status.info["info"])["sandboxID"] == SANDBOX_ID
    await wire.runtime.ReopenContainerLog(pb.ReopenContainerLogRequest(container_id=container_id))
    for seconds in (30, -1):
        await wire.runtime.StopContainer(pb.StopContainerRequest(container_id=container_id, timeout=seconds))
    assert wire.verbs.stop_timeouts == [30, 0]
    (item,) = (await wire.runtime.ListContainers(pb.ListContainersRequest())).containers
    assert item.image_id == IMAGE_ID
    await wire.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=container_id))
    assert not (await wire.runtime.ListContainers(pb.ListContainersRequest())).containers


async def test_exec_answers_bytes_and_a_code(wire: Wire) -> None:
    answer = await wire.exec("echo", "a")
    assert (answer.stdout, answer.stderr, answer.exit_code) == (b"echo a", b"\xff", 7)


async def test_an_image_from_pull_to_remove(wire: Wire) -> None:
    pull = pb.PullImageRequest(
        image=pb.ImageSpec(image="r/busybox:1"), auth=pb.AuthConfig(username="u", password="p")
    )
    assert (await wire.images.PullImage(pull)).image_ref == IMAGE_ID
    assert wire.image_verbs.pulled and wire.image_verbs.pulled[1]
    assert wire.image_verbs.pulled[1].password == "p"
    ask = pb.ImageStatusRequest(image=pb.ImageSpec(image="r/busybox:1"), verbose=True)
    answer = await wire.images.ImageStatus(ask)
    assert answer.image.id == IMAGE_ID and "imageSpec" in answer.info["info"]
    assert [one.id for one in (await wire.images.ListImages(pb.ListImagesRequest())).images] == [IMAGE_ID]
    await wire.images.RemoveImage(pb.RemoveImageRequest(image=pb.ImageSpec(image=IMAGE_ID)))
    assert not (await wire.images.ImageStatus(ask)).HasField("image")


async def test_image_fs_info_sets_zeroes(wire: Wire) -> None:
    (usage,) = (await wire.images.ImageFsInfo(pb.ImageFsInfoRequest())).image_filesystems
    assert usage.HasField("used_bytes") and usage.fs_id.mountpoint == "/var/lib/phantom"


async def test_lists_come_as_streams(wire: Wire) -> None:
    annotations = {"a": "x" * (600 << 10)}
    for number in range(5):
        config = SandboxConfig(metadata=SandboxMetadata(name="n"), annotations=annotations)
        wire.verbs.sandboxes[str(number)] = SandboxRecord(id=str(number), config=config, created_at=1)
    sent = [message async for message in wire.runtime.StreamPodSandboxes(pb.StreamPodSandboxesRequest())]
    assert [[one.id for one in message.pod_sandboxes] for message in sent] == [["0", "1"], ["2", "3"], ["4"]]
    assert [one async for one in wire.runtime.StreamContainers(pb.StreamContainersRequest())] == []
    wire.image_verbs.images = {"a": Image(id="a", size=1)}
    images = [message async for message in wire.images.StreamImages(pb.StreamImagesRequest())]
    assert [[one.id for one in message.images] for message in images] == [["a"]]


def test_chunks_keep_every_item_once() -> None:
    items = [pb.Image(id="x" * size) for size in (0, 10, 5, 100, 1)]
    runs = list(chunks(items, limit=12))
    assert [one for run in runs for one in run] == items and all(runs)
    assert list(chunks([], limit=12)) == []


class HealthyNode:
    """Node verbs of a host where there is nothing to tell."""

    async def doctor(self) -> list[CheckShape]:
        return []


async def test_the_node_service_is_served_where_there_is_a_node(tmp_path: Path, wire: Wire) -> None:
    path, node = tmp_path / "s", cast(NodeVerbs, HealthyNode())
    server = cri_server(path, wire.verbs, wire.image_verbs, Calls(Metrics(), NoTracing()), node=node)
    async with server, grpc.aio.insecure_channel(f"unix:{path}") as channel:
        assert not (await NodeStub(channel).Doctor(node_pb2.DoctorRequest())).checks
    code, _ = await refused(NodeStub(wire.channel).Doctor(node_pb2.DoctorRequest()))
    assert code is grpc.StatusCode.UNIMPLEMENTED


# ------------------------------------------------------------------------------------ errors


def every_error() -> list[type[PhantomError]]:
    found, rest = [], [PhantomError]
    while rest:
        kind = rest.pop()
        found.append(kind)
        # Only those of errors.py: what else is imported by now depends on the other tests.
        rest += [one for one in kind.__subclasses__() if one.__module__ == errors.__name__]
    return found


@pytest.mark.parametrize("kind", every_error())
async def test_every_error_has_its_code_on_the_wire(wire: Wire, kind: type[PhantomError]) -> None:
    wire.verbs.failure = kind("op 7, bind /a on /b: EACCES")
    code, text = await refused(wire.exec("x"))
    assert (code, text) == (GRPC_CODES[kind.code], str(wire.verbs.failure))
    assert text.endswith("op 7, bind /a on /b: EACCES")
    assert code.name == kind.code
    async with asyncio.timeout(5):  # the answer may be here before the server has counted it
        while metric(wire, "phantom_rpc_errors_total", method="ExecSync", code=kind.code) != 1:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def test_the_family_of_errors_is_covered() -> None:
    assert {name for name in vars(errors) if isinstance(vars(errors)[name], type)} <= {
        kind.__name__ for kind in every_error()
    }


async def test_an_unexpected_error_tells_the_log_not_the_client(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    wire.verbs.failure = ValueError("password=geheim")
    code, text = await refused(wire.exec("x"))
    assert code is grpc.StatusCode.INTERNAL
    assert text == "ExecSync: unexpected ValueError, see the daemon's log"
    (record,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert record.exc_info and "password=geheim" in caplog.text


async def test_an_error_is_logged_once_with_its_code(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    wire.verbs.failure = FailedPrecondition("container is created, not running")
    await refused(wire.exec("x"))
    (record,) = [one for one in caplog.records if one.name.startswith("phantom_cri")]
    assert record.getMessage() == "ExecSync: FAILED_PRECONDITION: container is created, not running"
    assert record.levelno == logging.WARNING


@pytest.mark.parametrize("text", ["é" * 5000, "%" * 9000, "\udcff\n\0", "x" * 100_000, ""])
async def test_any_text_arrives(wire: Wire, text: str) -> None:
    wire.verbs.failure = InvalidArgument(text)
    code, arrived = await refused(wire.exec("x"))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert arrived == (status_text(text) or "InvalidArgument")


def test_a_long_text_keeps_both_ends() -> None:
    short = status_text("mount /a" + "x" * 9000 + ": EACCES")
    assert short.startswith("mount /a") and short.endswith(": EACCES") and len(short) <= 6000


async def test_what_is_not_built_says_so_by_name(tmp_path: Path) -> None:
    class Empty: ...

    service = pb.DESCRIPTOR.services_by_name["RuntimeService"]
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Calls(Metrics(), NoTracing()).handler(service, Empty())])
    server.add_insecure_port(f"unix:{tmp_path}/s")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
        runtime = RuntimeServiceStub(channel)
        code, text = await refused(runtime.Version(pb.VersionRequest()))
        assert (code, text) == (grpc.StatusCode.UNIMPLEMENTED, "RuntimeService.Version is not implemented")
        with pytest.raises(grpc.aio.AioRpcError, match="GetContainerEvents is not implemented") as caught:
            await runtime.GetContainerEvents(pb.GetEventsRequest()).read()
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await server.stop(0)


def test_a_method_that_is_no_rpc_is_a_mistake() -> None:
    class Misspelt:
        async def Versoin(self) -> None: ...

    calls, service = Calls(Metrics(), NoTracing()), pb.DESCRIPTOR.services_by_name["RuntimeService"]
    with pytest.raises(ValueError, match=r"runtime\.v1\.RuntimeService has no RPC Versoin"):
        calls.handler(service, Misspelt())


async def test_empty_ids_are_refused(wire: Wire) -> None:
    code, text = await refused(wire.runtime.StopPodSandbox(pb.StopPodSandboxRequest()))
    assert (code, text) == (grpc.StatusCode.INVALID_ARGUMENT, "pod_sandbox_id: must not be empty")
    code, text = await refused(wire.runtime.ExecSync(pb.ExecSyncRequest(container_id="c")))
    assert (code, text) == (grpc.StatusCode.INVALID_ARGUMENT, "cmd: must not be empty")


async def test_a_deadline_cancels_the_verb(wire: Wire) -> None:
    code, _ = await refused(wire.exec("forever", seconds=0.2))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(wire.verbs.cancelled.wait(), 5)


async def test_a_client_that_leaves_cancels_the_verb(wire: Wire) -> None:
    call = wire.runtime.ExecSync(pb.ExecSyncRequest(container_id="c", cmd=["forever"]))
    await asyncio.wait_for(wire.verbs.started.wait(), 5)
    call.cancel()
    await asyncio.wait_for(wire.verbs.cancelled.wait(), 5)
    async with asyncio.timeout(5):
        while metric(wire, "phantom_rpc_errors_total", method="ExecSync", code="CANCELLED") != 1:  # noqa: ASYNC110
            await asyncio.sleep(0)


# ------------------------------------------------------------------------------ size, metrics


async def test_messages_of_16_mib_pass_both_ways(wire: Wire) -> None:
    config = pod_config(annotations={"a": "x" * (16 << 20)})
    await wire.runtime.RunPodSandbox(pb.RunPodSandboxRequest(config=config))
    (item,) = (await wire.runtime.ListPodSandbox(pb.ListPodSandboxRequest())).items
    assert len(item.annotations["a"]) == 16 << 20


async def test_every_call_is_timed(wire: Wire) -> None:
    await wire.runtime.Version(pb.VersionRequest())
    assert metric(wire, "phantom_rpc_seconds_count", method="Version") == 1
    assert metric(wire, "phantom_rpc_errors_total", method="Version", code="OK") is None


async def test_a_call_is_a_span_under_its_caller(tmp_path: Path) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    path, verbs = tmp_path / "s", FakeRuntime()
    server = cri_server(path, verbs, FakeImages(), Calls(Metrics(), Tracing(provider)))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with server, grpc.aio.insecure_channel(f"unix:{path}") as channel:
        runtime, metadata = RuntimeServiceStub(channel), (("traceparent", parent),)
        await runtime.Version(pb.VersionRequest(), metadata=metadata)
        unknown = pb.PodSandboxStatusRequest(pod_sandbox_id="x")
        await refused(runtime.PodSandboxStatus(unknown, metadata=metadata))
    version, status = exporter.get_finished_spans()
    assert (version.name, status.name) == ("Version", "PodSandboxStatus")
    assert version.parent and f"{version.parent.span_id:016x}" == "b7ad6b7169203331"
    assert status.status.status_code is StatusCode.ERROR


async def test_a_call_has_one_debug_line_with_its_ids(
    wire: Wire, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, str]] = []

    def keep(record: logging.LogRecord) -> bool:
        seen.append(fields_of(record))
        return True

    monkeypatch.setattr(caplog.handler, "filters", [keep])
    with caplog.at_level(logging.DEBUG, "phantom_cri"):
        await wire.exec("true")
    (record,) = [one for one in caplog.records if one.name.startswith("phantom_cri")]
    assert record.getMessage().startswith("ExecSync OK in ")
    assert {"method": "ExecSync", "container_id": CONTAINER_ID} in seen


def metric(wire: Wire, name: str, **labels: str) -> float | None:
    return wire.metrics.registry.get_sample_value(name, labels)


# ------------------------------------------------------------------------------------- socket


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_the_socket_is_for_its_group_only(wire: Wire) -> None:
    assert mode_of(wire.server.path) == 0o660
    assert mode_of(wire.server.path.parent) == 0o711


async def test_stopping_takes_the_socket_away(tmp_path: Path) -> None:
    wire = Wire(tmp_path / "s")
    async with wire.server:
        assert (tmp_path / "s").exists()
    assert not (tmp_path / "s").exists()
    await wire.server.stop()


async def test_a_second_server_refuses_and_the_first_goes_on(wire: Wire) -> None:
    with pytest.raises(AlreadyExists, match="another daemon answers at"):
        await Wire(wire.server.path).server.start()
    await wire.runtime.Version(pb.VersionRequest())


async def test_a_socket_that_nobody_answers_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    async with Wire(path).server, grpc.aio.insecure_channel(f"unix:{path}") as channel:
        await RuntimeServiceStub(channel).Version(pb.VersionRequest())


def test_a_file_in_the_way_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(FailedPrecondition, match="exists and is not a socket"):
        make_way(path)
    assert path.read_text() == "precious"


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too long for a socket"):
        make_way(tmp_path / ("x" * 107))


async def test_a_later_daemons_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = Wire(path)
    await first.server.start()
    path.rename(tmp_path / "moved")
    async with Wire(path).server, grpc.aio.insecure_channel(f"unix:{path}") as channel:
        await first.server.stop()
        await RuntimeServiceStub(channel).Version(pb.VersionRequest())

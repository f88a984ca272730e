"""Every RPC of CRI under requests that no good client sends: a code that names the field, and no trace."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, settings

from harness.daemon import Daemon
from harness.registry import serve_from
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.hostile.mutation import mutated
from tests.e2e.lifecycle.client import Container, Cri, Pod, refusal
from tests.e2e.lifecycle.conftest import settled, warmed_up

pytestmark = pytest.mark.root

CALL_SECONDS = 20.0
FAULTLESS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""Codes that lay the blame on the request. INTERNAL, UNKNOWN and a deadline lay it on us."""

METHODS: list[MethodDescriptor] = [
    method
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.name not in ("CheckpointPod", "RestorePod")
]


@pytest.fixture(scope="module")
def cri(daemon: Daemon, busybox_image: str) -> Iterator[Cri]:
    """Afterwards the daemon has what it had before all the requests."""
    client = Cri(daemon.endpoint)
    client.pull(busybox_image)
    serve_from("127.0.0.1:1", daemon.registries, "_default")  # from now on no name leads to a registry
    before = warmed_up(daemon, client)
    yield client
    client.remove_pods()
    settled(daemon, client)
    daemon.wait_for_no_traces(before)
    client.close()


class Target:
    """What a valid request is about: a pod with a container that runs."""

    def __init__(self, cri: Cri, logs: Path) -> None:
        self.cri, self.logs = cri, logs
        self.pod, self.container = Pod(cri, pb.PodSandboxConfig()), Container(cri, "")

    def renew(self) -> None:
        """Until the next request kills it."""
        if not self.container.id or not self._runs():
            self.pod = self.cri.pod(self.logs).run_sandbox()
            self.container = self.pod.start("sleep 1000")

    def _runs(self) -> bool:
        try:
            return bool(self.container.status.state == pb.CONTAINER_RUNNING)
        except grpc.RpcError:
            return False

    def valid(self, kind: type[Message]) -> Message:
        """A request of this type that would be answered."""
        known: dict[str, Any] = {
            "pod_sandbox_id": self.pod.id,
            "container_id": self.container.id,
            "cmd": ["true"],
            "stdout": True,
            "timeout": 1,
            "image": pb.ImageSpec(image=self.cri.image),
            "location": str(self.logs / "checkpoint.tar"),
            "sandbox_config": self.pod.config,
        }
        names = kind.DESCRIPTOR.fields_by_name
        fields = {name: value for name, value in known.items() if name in names}
        if kind is pb.RunPodSandboxRequest:
            fields["config"] = self.cri.pod(self.logs).config
        elif kind is pb.RemoveImageRequest:
            fields["image"] = pb.ImageSpec(image="sha256:" + "0" * 64)
        elif kind is pb.CreateContainerRequest:
            fields["config"] = self.pod.container_config("true")
        return kind(**fields)


@pytest.fixture(scope="module")
def target(cri: Cri, tmp_path_factory: pytest.TempPathFactory) -> Target:
    return Target(cri, tmp_path_factory.mktemp("logs"))


def call(cri: Cri, method: MethodDescriptor, request: Message) -> Any:
    """The answer, or all messages of a stream that ends; GetContainerEvents only has to begin."""
    stub: Any = getattr(
        cri.images if method.containing_service.name == "ImageService" else cri.runtime, method.name
    )
    if not method.server_streaming:
        return stub(request, timeout=CALL_SECONDS)
    if method.name == "GetContainerEvents":
        stub(request, timeout=CALL_SECONDS).cancel()
        return None
    return list(stub(request, timeout=CALL_SECONDS))


def field_names(descriptor: Descriptor, seen: set[str]) -> set[str]:
    """Of a message and all messages in it."""
    names: set[str] = set()
    if descriptor.full_name not in seen:
        seen.add(descriptor.full_name)
        for field in descriptor.fields:
            names.add(field.name)
            if field.message_type is not None:
                names |= field_names(field.message_type, seen)
    return names


def check_refusal(method: MethodDescriptor, request: Message, error: grpc.RpcError) -> None:
    code, text = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNKNOWN and text.startswith('exec: "'):
        return  # the command cannot be executed: containerd's code, whose text the kubelet shows
    unreachable = code is grpc.StatusCode.UNKNOWN and text.startswith("RegistryUnavailable")
    assert code in FAULTLESS or unreachable, f"{code}: {text}\n{request}"
    assert "Traceback" not in text
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        words = set(re.findall(r"\w+", text))
        assert words & field_names(method.input_type, set()), f"no field is named: {text}"


def undo(target: Target, method: MethodDescriptor, request: Message, answer: Any) -> None:
    """What a request made although it was odd has to work, and goes again."""
    if isinstance(answer, pb.RunPodSandboxResponse):
        Pod(target.cri, pb.PodSandboxConfig(), answer.pod_sandbox_id).remove()
    elif isinstance(answer, pb.CreateContainerResponse):
        made = Container(target.cri, answer.container_id)
        try:
            made.start()
        except grpc.RpcError as error:
            check_refusal(method, request, error)
        made.remove()


def confined(request: Any, cgroup: str, logs: Path) -> Message:
    """Whom the kubelet lets write anywhere may write to our folders only; what is refused stays as it is."""
    for config in (getattr(request, "config", None), getattr(request, "sandbox_config", None)):
        if isinstance(config, pb.PodSandboxConfig):
            if config.log_directory.strip("/. "):
                config.log_directory = f"{logs}/{config.log_directory}"
            if config.linux.cgroup_parent:
                config.linux.cgroup_parent = f"{cgroup}/{config.linux.cgroup_parent}"
    return request  # type: ignore[no-any-return]


def hold_against(
    method: MethodDescriptor, daemon: Daemon, target: Target, examples: int, random: bool
) -> None:
    kind = GetMessageClass(method.input_type)
    target.renew()

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=not random,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated(target.valid(kind)))
    def hold(request: Message) -> None:
        request = confined(request, daemon.cgroup, target.logs)
        try:
            answer = call(target.cri, method, request)
        except grpc.RpcError as error:
            check_refusal(method, request, error)
        else:
            undo(target, method, request, answer)

    hold()
    assert daemon.running.running()
    target.renew()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_odd_requests(method: MethodDescriptor, daemon: Daemon, target: Target) -> None:
    hold_against(method, daemon, target, 40, random=False)


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_many_odd_requests(method: MethodDescriptor, daemon: Daemon, target: Target) -> None:
    """Others at each run."""
    hold_against(method, daemon, target, 600, random=True)


GARBAGE = [b"\xff" * 64, b"\x0a\xff\xff\xff\xff\x0f", b"\x08", b"\x0b" * 5000]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_bytes_that_are_no_message(method: MethodDescriptor, cri: Cri) -> None:
    service = f"/{method.containing_service.full_name}/{method.name}"
    for body in GARBAGE:
        caller = cri.channel.unary_unary(service, lambda body: body, lambda body: body)
        code, text = refusal(partial(caller, body, timeout=CALL_SECONDS))
        assert (code, text) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            f"request: not a valid {method.input_type.full_name}",
        )


@pytest.mark.parametrize(
    "grow",
    [
        lambda pod: pod.annotations.update({f"a{number}": "x" * 1000 for number in range(30_000)}),
        lambda pod: pod.labels.update({"a": "x" * (15 << 20)}),
        lambda pod: pod.dns_config.searches.extend(["x" * 60] * 100_000),
        lambda pod: pod.linux.sysctls.update({f"net.ipv4.a{number}": "1" for number in range(100_000)}),
        lambda pod: pod.port_mappings.extend([pb.PortMapping(container_port=80, host_port=1)] * 100_000),
    ],
    ids=["annotations", "a label", "search domains", "sysctls", "ports"],
)
def test_huge_pods(cri: Cri, tmp_path: Path, grow: Callable[[pb.PodSandboxConfig], None]) -> None:
    pod = cri.pod(tmp_path)
    grow(pod.config)
    try:
        pod.run_sandbox()
    except grpc.RpcError as error:
        assert error.code() in FAULTLESS, error
    else:
        assert pod.id in cri.pods()
        pod.remove()

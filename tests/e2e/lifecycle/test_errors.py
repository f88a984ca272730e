"""What each verb refuses, with the gRPC code that the kubelet acts on; calls that are given up half way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness.daemon import Daemon
from harness.waiting import wait_until
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Cri, Pod, linux, refusal
from tests.e2e.lifecycle.conftest import PodMaker, settled

pytestmark = pytest.mark.root

Code = grpc.StatusCode
UNKNOWN_ID = "f" * 64

NOT_FOUND: dict[str, Callable[[Cri], object]] = {
    "PodSandboxStatus": lambda cri: cri.runtime.PodSandboxStatus(
        pb.PodSandboxStatusRequest(pod_sandbox_id=UNKNOWN_ID)
    ),
    "CreateContainer": lambda cri: Pod(cri, cri.pod(Path("/nowhere")).config, UNKNOWN_ID).create("true"),
    "StartContainer": lambda cri: cri.runtime.StartContainer(
        pb.StartContainerRequest(container_id=UNKNOWN_ID)
    ),
    "ContainerStatus": lambda cri: cri.runtime.ContainerStatus(
        pb.ContainerStatusRequest(container_id=UNKNOWN_ID)
    ),
    "ExecSync": lambda cri: cri.runtime.ExecSync(pb.ExecSyncRequest(container_id=UNKNOWN_ID, cmd=["true"])),
    "UpdateContainerResources": lambda cri: cri.runtime.UpdateContainerResources(
        pb.UpdateContainerResourcesRequest(container_id=UNKNOWN_ID)
    ),
    "ReopenContainerLog": lambda cri: cri.runtime.ReopenContainerLog(
        pb.ReopenContainerLogRequest(container_id=UNKNOWN_ID)
    ),
    "Exec": lambda cri: cri.runtime.Exec(pb.ExecRequest(container_id=UNKNOWN_ID, cmd=["x"], stdout=True)),
    "Attach": lambda cri: cri.runtime.Attach(pb.AttachRequest(container_id=UNKNOWN_ID, stdout=True)),
    "PortForward": lambda cri: cri.runtime.PortForward(pb.PortForwardRequest(pod_sandbox_id=UNKNOWN_ID)),
    "ContainerStats": lambda cri: cri.runtime.ContainerStats(
        pb.ContainerStatsRequest(container_id=UNKNOWN_ID)
    ),
    "CheckpointContainer": lambda cri: cri.runtime.CheckpointContainer(
        pb.CheckpointContainerRequest(container_id=UNKNOWN_ID, location="/tmp/checkpoint.tar")
    ),
}

IDEMPOTENT: dict[str, Callable[[Cri], object]] = {
    "StopPodSandbox": lambda cri: cri.runtime.StopPodSandbox(
        pb.StopPodSandboxRequest(pod_sandbox_id=UNKNOWN_ID)
    ),
    "RemovePodSandbox": lambda cri: cri.runtime.RemovePodSandbox(
        pb.RemovePodSandboxRequest(pod_sandbox_id=UNKNOWN_ID)
    ),
    "StopContainer": lambda cri: cri.runtime.StopContainer(pb.StopContainerRequest(container_id=UNKNOWN_ID)),
    "RemoveContainer": lambda cri: cri.runtime.RemoveContainer(
        pb.RemoveContainerRequest(container_id=UNKNOWN_ID)
    ),
    "RemoveImage": lambda cri: cri.images.RemoveImage(
        pb.RemoveImageRequest(image=pb.ImageSpec(image="never/pulled:1"))
    ),
}


@pytest.mark.parametrize("verb", NOT_FOUND)
def test_an_unknown_id_is_not_found(cri: Cri, verb: str) -> None:
    code, text = refusal(lambda: NOT_FOUND[verb](cri))
    assert code is Code.NOT_FOUND
    assert UNKNOWN_ID in text


@pytest.mark.parametrize("verb", IDEMPOTENT)
def test_what_is_not_there_is_stopped_and_removed(cri: Cri, verb: str) -> None:
    IDEMPOTENT[verb](cri)


def test_an_unknown_image(cri: Cri, pod: Pod) -> None:
    unknown = pb.ImageSpec(image="registry.example/never/pulled:1")
    assert not cri.images.ImageStatus(pb.ImageStatusRequest(image=unknown)).HasField("image")
    assert not cri.images.ListImages(pb.ListImagesRequest(filter=pb.ImageFilter(image=unknown))).images
    code, text = refusal(lambda: pod.create("true", image=unknown))
    assert code is Code.NOT_FOUND
    assert unknown.image in text


@pytest.mark.parametrize("name", ["", "a/UPPER", "a b", "x:", "x@sha256:12", "-x", "x/../y"])
def test_an_image_name_that_is_none(cri: Cri, name: str) -> None:
    code, text = refusal(
        lambda: cri.images.PullImage(pb.PullImageRequest(image=pb.ImageSpec(image=name))),
    )
    assert code is Code.INVALID_ARGUMENT
    assert name in text


def test_a_registry_that_does_not_answer(cri: Cri) -> None:
    spec = pb.ImageSpec(image="127.0.0.1:1/x:1")
    code, text = refusal(lambda: cri.images.PullImage(pb.PullImageRequest(image=spec)))
    assert code is Code.UNKNOWN
    assert text.startswith("RegistryUnavailable"), "the kubelet shows this reason"


BAD_PODS: dict[str, tuple[str, Any]] = {
    "no name": ("metadata.name", {"metadata": pb.PodSandboxMetadata(uid="1", namespace="n")}),
    "no metadata": ("metadata", {"metadata": None}),
    "host name": ("hostname", {"hostname": "a b"}),
    "long host name": ("hostname", {"hostname": "a" * 65}),
    "dns server": ("dns_config.servers", {"dns_config": pb.DNSConfig(servers=["no.address"])}),
    "dns search": ("dns_config", {"dns_config": pb.DNSConfig(searches=["a\nnameserver 1.2.3.4"])}),
    "port": ("host_port", {"port_mappings": [pb.PortMapping(container_port=80, host_port=70000)]}),
    "host ip": (
        "host_ip",
        {"port_mappings": [pb.PortMapping(container_port=80, host_port=80, host_ip="nowhere")]},
    ),
    "cgroup parent": ("cgroup_parent", {"linux": pb.LinuxPodSandboxConfig(cgroup_parent="/a/../../b")}),
}


def sandbox_security(**fields: Any) -> dict[str, Any]:
    context = pb.LinuxSandboxSecurityContext(**fields)
    return {"linux": pb.LinuxPodSandboxConfig(security_context=context)}


BAD_PODS |= {
    "network mode": ("network", sandbox_security(namespace_options=pb.NamespaceOption(network=pb.CONTAINER))),
    "ipc mode": ("ipc", sandbox_security(namespace_options=pb.NamespaceOption(ipc=pb.TARGET))),
    "pid target": ("pid", sandbox_security(namespace_options=pb.NamespaceOption(pid=pb.TARGET))),
    "group without user": ("run_as_group", sandbox_security(run_as_group=pb.Int64Value(value=1))),
}


@pytest.mark.parametrize("wrong", BAD_PODS)
def test_a_refused_pod_names_the_field_and_leaves_nothing(cri: Cri, make_pod: PodMaker, wrong: str) -> None:
    field, fields = BAD_PODS[wrong]
    code, text = refusal(lambda: make_pod(**fields))
    assert code is Code.INVALID_ARGUMENT
    assert field in text
    assert cri.pods() == set()


def test_a_handler_that_is_not_there(cri: Cri, make_pod: PodMaker) -> None:
    code, text = refusal(lambda: make_pod(handler="nonsense"))
    assert code in (Code.NOT_FOUND, Code.INVALID_ARGUMENT)
    assert "no handler 'nonsense'; known are '', 'phantom' (configuration: handlers)" in text


BAD_CONTAINERS: dict[str, tuple[str, Any]] = {
    "no name": ("metadata.name", {"metadata": pb.ContainerMetadata()}),
    "log path": ("log_path", {"log_path": "../../../etc/passwd"}),
    "mount without source": ("host_path", {"mounts": [pb.Mount(container_path="/data")]}),
    "mount without target": ("container_path", {"mounts": [pb.Mount(host_path="/tmp")]}),
    "device": ("/dev/missing", {"devices": [pb.Device(host_path="/dev/missing", permissions="rw")]}),
    "device rights": ("permissions", {"devices": [pb.Device(host_path="/dev/null", permissions="rx")]}),
    "nul in command": ("command", {"command": ["a\0b"]}),
    "nul in variable": ("envs", {"envs": [pb.KeyValue(key="A", value=b"a\0b")]}),
    "variable": ("envs", {"envs": [pb.KeyValue(key="A=B", value=b"c")]}),
    "user and name": (
        "run_as_username",
        {"linux": linux(run_as_user=pb.Int64Value(value=1), run_as_username="root")},
    ),
    "group without user": ("run_as_group", {"linux": linux(run_as_group=pb.Int64Value(value=1))}),
    "user id": ("run_as_user", {"linux": linux(run_as_user=pb.Int64Value(value=-1))}),
    "host network": (
        "namespace_options.network",
        {"linux": linux(namespace_options=pb.NamespaceOption(network=pb.NODE))},
    ),
}


@pytest.mark.parametrize("wrong", BAD_CONTAINERS)
def test_a_container_that_is_refused_names_the_field_and_leaves_nothing(pod: Pod, wrong: str) -> None:
    field, fields = BAD_CONTAINERS[wrong]
    code, text = refusal(lambda: pod.create(**{"command": "true", **fields}))
    assert code is Code.INVALID_ARGUMENT
    assert field in text
    assert pod.cri.containers() == set()


def test_names_are_taken_once(cri: Cri, pod: Pod) -> None:
    code, text = refusal(lambda: Pod(cri, pod.config).run_sandbox())
    assert code is Code.ALREADY_EXISTS
    assert pod.id in text
    metadata = pb.ContainerMetadata(name="same")
    first = pod.create("true", metadata=metadata)
    code, text = refusal(lambda: pod.create("true", metadata=metadata))
    assert code is Code.ALREADY_EXISTS
    assert first.id in text
    first.remove()
    pod.create("true", metadata=metadata)
    pod.remove()
    assert Pod(cri, pod.config).run_sandbox().id != pod.id


def test_wrong_states(pod: Pod) -> None:
    created, ended, running = pod.create("true"), pod.run("true"), pod.start("sleep 100")
    reopen = pb.ReopenContainerLogRequest
    wrong: list[Callable[[], object]] = [
        lambda: created.exec("true"),
        lambda: ended.exec("true"),
        ended.start,
        running.start,
        lambda: pod.cri.runtime.ReopenContainerLog(reopen(container_id=created.id)),
        lambda: pod.cri.runtime.ReopenContainerLog(reopen(container_id=ended.id)),
    ]
    for call in wrong:
        code, text = refusal(call)
        assert code is Code.FAILED_PRECONDITION, text
    pod.stop()
    for call in (created.start, lambda: pod.create("true")):
        code, text = refusal(call)
        assert code is Code.FAILED_PRECONDITION, text
        assert "notready" in text


@pytest.mark.parametrize(
    ("request_of", "field"),
    [
        (lambda id: pb.ExecSyncRequest(container_id=id), "cmd"),
        (lambda id: pb.ExecSyncRequest(container_id=id, cmd=["true"], timeout=-1), "timeout"),
        (lambda id: pb.ExecSyncRequest(container_id=id, cmd=["a\0b"]), "cmd"),
        (lambda id: pb.ExecSyncRequest(cmd=["true"]), "container_id"),
    ],
)
def test_bad_execs(pod: Pod, request_of: Callable[[str], Any], field: str) -> None:
    container = pod.start("sleep 100")
    code, text = refusal(lambda: pod.cri.runtime.ExecSync(request_of(container.id)))
    assert code is Code.INVALID_ARGUMENT
    assert field in text


@pytest.mark.parametrize("first", ["remove", "other"])
def test_a_container_that_is_removed_during_another_call_stays_removed(
    cri: Cri, make_pod: PodMaker, first: str
) -> None:
    """Whoever comes to it second finds it gone, or takes it along; what is left is looked for at the end."""
    pod = make_pod()
    for number in range(40):
        container = pod.create("sleep 100")
        removal = partial(
            cri.runtime.RemoveContainer.future, pb.RemoveContainerRequest(container_id=container.id)
        )
        resources = pb.LinuxContainerResources(memory_limit_in_bytes=(64 + number) << 20)
        update = pb.UpdateContainerResourcesRequest(container_id=container.id, linux=resources)
        others = [
            partial(cri.runtime.StartContainer.future, pb.StartContainerRequest(container_id=container.id)),
            partial(cri.runtime.UpdateContainerResources.future, update),
        ]
        calls = [begin() for begin in ([removal, *others] if first == "remove" else [*others, removal])]
        codes = [call.code() for call in calls]
        assert codes[0 if first == "remove" else -1] is Code.OK
        assert set(codes) <= {Code.OK, Code.NOT_FOUND, Code.FAILED_PRECONDITION}
        assert container.id not in cri.containers()
    pod.remove()
    assert refusal(lambda: pod.status)[0] is Code.NOT_FOUND


def test_a_prefix_of_two_ids_is_refused(cri: Cri, make_pod: PodMaker) -> None:
    pods = [make_pod() for _ in range(17)]  # of 17 ids, two begin with the same digit
    digits = [pod.id[0] for pod in pods]
    shared = next(digit for digit in digits if digits.count(digit) > 1)
    request = pb.PodSandboxStatusRequest(pod_sandbox_id=shared)
    code, text = refusal(lambda: cri.runtime.PodSandboxStatus(request))
    assert code is Code.INVALID_ARGUMENT
    assert "ambiguous" in text


def test_requests_up_to_sixteen_mebibytes(cri: Cri, make_pod: PodMaker) -> None:
    annotations = {f"key-{number}": "x" * (1 << 20) for number in range(15)}
    pod = make_pod(annotations=annotations)
    assert dict(pod.status.annotations) == annotations


@pytest.mark.parametrize("after_ms", [0, 1, 2, 4, 8])
def test_calls_that_are_given_up_half_way_leave_nothing(
    node: Daemon, cri: Cri, tmp_path: Path, after_ms: int
) -> None:
    """Either the call was done, and then all of it, or nothing of it is there; names are free again."""
    before = settled(node, cri)
    for _ in range(6):
        pod = cri.pod(tmp_path)
        given_up(cri.runtime.RunPodSandbox, pb.RunPodSandboxRequest(config=pod.config), after_ms)
        (pod.id,) = cri.pods() or {pod.run_sandbox().id}
        config = pod.container_config("sleep 100")
        request = pb.CreateContainerRequest(pod_sandbox_id=pod.id, config=config, sandbox_config=pod.config)
        given_up(cri.runtime.CreateContainer, request, after_ms)
        (made,) = cri.containers() or {cri.runtime.CreateContainer(request).container_id}
        given_up(cri.runtime.StartContainer, pb.StartContainerRequest(container_id=made), after_ms)
        given_up(cri.runtime.StopPodSandbox, pb.StopPodSandboxRequest(pod_sandbox_id=pod.id), after_ms)
        given_up(cri.runtime.RemovePodSandbox, pb.RemovePodSandboxRequest(pod_sandbox_id=pod.id), after_ms)
        cri.remove_pods()
    node.wait_for_no_traces(before)


def given_up(verb: Any, request: Any, after_ms: int) -> None:
    """Sends a request whose time is up almost at once; how it ends is its own affair."""
    call = verb.future(request, timeout=after_ms / 1000)
    wait_until(call.done, "the call to end")
    assert call.code() in (Code.OK, Code.DEADLINE_EXCEEDED, Code.FAILED_PRECONDITION)


def test_a_pull_that_is_given_up_shows_nothing_and_can_be_made_again(
    make_daemon: DaemonMaker, busybox_image: str
) -> None:
    with closing(Cri(make_daemon({"pools": []}).start().endpoint)) as cri:
        request = pb.PullImageRequest(image=pb.ImageSpec(image=busybox_image))
        for after_ms in (1, 5, 10, 20):
            code, _ = refusal(partial(cri.images.PullImage, request, timeout=after_ms / 1000))
            assert code is Code.DEADLINE_EXCEEDED
            assert not cri.images.ListImages(pb.ListImagesRequest()).images
        cri.pull(busybox_image)
        assert len(cri.images.ListImages(pb.ListImagesRequest()).images) == 1

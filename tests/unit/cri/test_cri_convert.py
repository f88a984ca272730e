from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.cri.convert.common import (
    HIGHEST_ID,
    image_spec_from,
    image_spec_message,
    namespaces_from,
    namespaces_message,
    resources_from,
    resources_message,
)
from phantom_cri.cri.convert.container import (
    container_config_from,
    container_message,
    container_state_from,
    container_status_message,
)
from phantom_cri.cri.convert.details import container_details, sandbox_details
from phantom_cri.cri.convert.image import image_message
from phantom_cri.cri.convert.sandbox import (
    sandbox_config_from,
    sandbox_message,
    sandbox_state_from,
    sandbox_status_message,
)
from phantom_cri.cri.convert.signals import signal_from, signal_value
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import (
    ContainerRecord,
    IdMapping,
    Image,
    ImageConfig,
    NamespaceOptions,
    ProcessRef,
    Resources,
    SandboxRecord,
    SecurityProfile,
    User,
)
from tests.unit.cri.any_message import any_message

# A busy machine is no failure.
UNHURRIED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def unknown(value: int) -> Any:
    """An enum's value that the types do not know, but the wire lets through."""
    return value


def container_config(**fields: Any) -> pb.ContainerConfig:
    return pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name="main", attempt=1), image=pb.ImageSpec(image="busybox"), **fields
    )


def security(**fields: Any) -> pb.ContainerConfig:
    context = pb.LinuxContainerSecurityContext(**fields)
    return container_config(linux=pb.LinuxContainerConfig(security_context=context))


def pod_config(**fields: Any) -> pb.PodSandboxConfig:
    return pb.PodSandboxConfig(metadata=pb.PodSandboxMetadata(name="pod", uid="u", namespace="n"), **fields)


def pod_security(**fields: Any) -> pb.PodSandboxConfig:
    return pod_config(
        linux=pb.LinuxPodSandboxConfig(security_context=pb.LinuxSandboxSecurityContext(**fields))
    )


@given(any_message(pb.ContainerConfig.DESCRIPTOR))
@UNHURRIED
def test_any_container_is_converted_or_refused(message: pb.ContainerConfig) -> None:
    message.metadata.name = message.image.image = "x"
    try:
        config = container_config_from(message)
    except InvalidArgument as error:
        assert str(error).startswith("config.")
        return
    record = ContainerRecord(
        id="c", sandbox_id="s", config=config, image_id="", image_ref="", image_name="", created_at=1
    )
    status = container_status_message(record)
    assert len(status.mounts) == len(message.mounts)
    assert status.labels == message.labels and status.annotations == message.annotations
    json.loads(container_details(record)["info"])


@given(any_message(pb.PodSandboxConfig.DESCRIPTOR))
@UNHURRIED
def test_any_pod_is_converted_or_refused(message: pb.PodSandboxConfig) -> None:
    message.metadata.name = "x"
    try:
        config = sandbox_config_from(message)
    except InvalidArgument as error:
        assert str(error).startswith("config.")
        return
    record = SandboxRecord(id="s", config=config, created_at=1)
    assert sandbox_status_message(record).metadata == message.metadata
    json.loads(sandbox_details(record)["info"])


@given(
    st.builds(
        Resources,
        cpu_period=st.integers(0, 2**63 - 1),
        cpu_quota=st.integers(-1, 2**40),
        unified=st.just({"memory.low": "1"}),
        memory_swap_limit=st.integers(0, 2**60),
        oom_score_adj=st.integers(-1000, 1000),
        pids_limit=st.just(0),
    )
)
@UNHURRIED
def test_resources_come_back(resources: Resources) -> None:
    message = pb.LinuxContainerResources.FromString(resources_message(resources).SerializeToString())
    assert resources_from(message, "linux") == resources


@given(any_message(pb.ImageSpec.DESCRIPTOR))
@UNHURRIED
def test_image_specs_come_back(message: pb.ImageSpec) -> None:
    assert image_spec_message(image_spec_from(message)) == message


@pytest.mark.parametrize("mode", ["pod", "container", "node", "target"])
def test_namespaces_come_back(mode: Any) -> None:
    ids = (IdMapping(host_id=65536, container_id=0, length=65536),)
    options = NamespaceOptions(
        network="node", pid=mode, ipc="pod", target_id="t", user="pod", uids=ids, gids=ids
    )
    assert namespaces_from(namespaces_message(options), "options") == options


def test_mounts_are_echoed_whole() -> None:
    mount = pb.Mount(
        container_path="/a",
        host_path="/b",
        readonly=True,
        selinux_relabel=True,
        recursive_read_only=True,
        propagation=pb.PROPAGATION_BIDIRECTIONAL,
        image=pb.ImageSpec(image="i", image_ref="r"),
        image_sub_path="x",
        uidMappings=[pb.IDMapping(host_id=1, container_id=2, length=3)],
        gidMappings=[pb.IDMapping(host_id=4, container_id=5, length=6)],
    )
    assert {field.name for field, _ in mount.ListFields()} == {
        field.name for field in mount.DESCRIPTOR.fields
    }
    (echoed,) = container_status_message(record_of(container_config(mounts=[mount]))).mounts
    assert echoed == mount


def record_of(message: pb.ContainerConfig, /, **fields: Any) -> ContainerRecord:
    whole: dict[str, Any] = {
        "id": "c",
        "sandbox_id": "s",
        "config": container_config_from(message),
        "image_id": "sha256:i",
        "image_ref": "r@sha256:m",
        "image_name": "docker.io/library/busybox:latest",
        "created_at": 1,
    }
    return ContainerRecord(**whole | fields)


def test_every_signal_comes_back() -> None:
    names = {signal_from(value, "stop_signal") for value in pb.Signal.values()}
    assert len(names) == 66
    assert {signal_value(name) for name in names} == set(pb.Signal.values())


@pytest.mark.parametrize(
    ("value", "name"),
    [(0, ""), (13, "SIGKILL"), (23, "SIGTERM"), (38, "SIGRTMIN+3"), (51, "SIGRTMAX-14"), (65, "SIGRTMAX")],
)
def test_signals_are_indexes(value: int, name: str) -> None:
    assert signal_from(value, "stop_signal") == name
    assert signal_value(name) == value


def test_real_time_signals_have_two_names() -> None:
    assert signal_value("SIGRTMIN+16") == pb.SIGRTMAXMINUS14
    assert signal_value("SIGRTMAX-15") == pb.SIGRTMINPLUS15
    assert signal_value("SIGNONSENSE") == pb.RUNTIME_DEFAULT


def test_an_unknown_signal_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"config.stop_signal: 66 is not a Signal \(0…65\)"):
        container_config_from(container_config(stop_signal=66))


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (
            container_config(mounts=[pb.Mount(container_path="/a", propagation=unknown(9))]),
            "config.mounts.propagation: 9",
        ),
        (security(namespace_options=pb.NamespaceOption(pid=unknown(4))), "namespace_options.pid: 4"),
        (security(supplemental_groups_policy=2), "supplemental_groups_policy: 2"),
        (security(seccomp=pb.SecurityProfile(profile_type=unknown(3))), "seccomp.profile_type: 3"),
        (
            security(seccomp=pb.SecurityProfile(profile_type=pb.SecurityProfile.Localhost)),
            "seccomp.localhost_ref: a localhost",
        ),
        (security(seccomp_profile_path="nonsense"), "seccomp_profile_path: 'nonsense'"),
        (security(run_as_user=pb.Int64Value(value=-1)), "run_as_user: -1"),
        (security(run_as_user=pb.Int64Value(value=HIGHEST_ID + 1)), "run_as_user: 2147483648"),
        (security(run_as_group=pb.Int64Value(value=5)), "run_as_group: 5 needs run_as_user"),
        (
            security(run_as_user=pb.Int64Value(value=5), run_as_username="x"),
            "run_as_username: 'x' cannot be combined",
        ),
        (security(supplemental_groups=[2**40]), "supplemental_groups: 1099511627776"),
        (container_config(log_path="a\0b"), "config.log_path: contains a NUL"),
        (
            container_config(mounts=[pb.Mount(container_path="/a", image_sub_path="\0")]),
            "config.mounts.image_sub_path: contains a NUL",
        ),
        (
            container_config(
                linux=pb.LinuxContainerConfig(resources=pb.LinuxContainerResources(oom_score_adj=1001))
            ),
            "resources.oom_score_adj: 1001",
        ),
        (pb.ContainerConfig(image=pb.ImageSpec(image="i")), "config.metadata.name"),
        (pb.ContainerConfig(metadata=pb.ContainerMetadata(name="n")), "config.image.image"),
    ],
)
def test_a_wrong_container_names_its_field(message: pb.ContainerConfig, field: str) -> None:
    with pytest.raises(InvalidArgument, match=field):
        container_config_from(message)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.PodSandboxConfig(), "config.metadata.name"),
        (pod_config(port_mappings=[pb.PortMapping(protocol=unknown(3))]), "config.port_mappings.protocol: 3"),
        (pod_config(port_mappings=[pb.PortMapping(host_port=65536)]), "port_mappings.host_port: 65536"),
        (pod_config(log_directory="a\0"), "config.log_directory: contains a NUL"),
        (pod_security(run_as_group=pb.Int64Value(value=1)), "run_as_group: 1 needs run_as_user"),
        (
            pod_security(
                namespace_options=pb.NamespaceOption(userns_options=pb.UserNamespace(mode=unknown(7)))
            ),
            "userns_options.mode: 7",
        ),
    ],
)
def test_a_wrong_pod_names_its_field(message: pb.PodSandboxConfig, field: str) -> None:
    with pytest.raises(InvalidArgument, match=field):
        sandbox_config_from(message)


def test_an_environment_value_need_not_be_utf8() -> None:
    config = container_config_from(container_config(envs=[pb.KeyValue(key="A", value=b"\xff\xc3\xa9")]))
    assert config.envs[0].text.encode("utf-8", "surrogateescape") == b"\xff\xc3\xa9"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"seccomp": pb.SecurityProfile()}, SecurityProfile()),
        (
            {"seccomp": pb.SecurityProfile(profile_type=pb.SecurityProfile.Unconfined)},
            SecurityProfile(kind="unconfined"),
        ),
        ({"seccomp_profile_path": "runtime/default"}, SecurityProfile()),
        (
            {"seccomp_profile_path": "localhost//p.json"},
            SecurityProfile(kind="localhost", localhost_ref="/p.json"),
        ),
        (
            {
                "seccomp": pb.SecurityProfile(profile_type=pb.SecurityProfile.Unconfined),
                "seccomp_profile_path": "runtime/default",
            },
            SecurityProfile(kind="unconfined"),
        ),
    ],
)
def test_no_seccomp_profile_is_not_the_default_one(
    fields: dict[str, Any], expected: SecurityProfile | None
) -> None:
    assert container_config_from(security(**fields)).security.seccomp == expected
    assert sandbox_config_from(pod_security(**fields)).security.seccomp == expected


@pytest.mark.parametrize("reference", ["mine", "localhost/mine"])
def test_an_apparmor_name_comes_with_and_without_prefix(reference: str) -> None:
    profile = pb.SecurityProfile(profile_type=pb.SecurityProfile.Localhost, localhost_ref=reference)
    expected = SecurityProfile(kind="localhost", localhost_ref="mine")
    assert container_config_from(security(apparmor=profile)).security.apparmor == expected
    assert container_config_from(security()).security.apparmor == SecurityProfile()


def test_an_absent_state_is_not_the_zero_state() -> None:
    assert sandbox_state_from(pb.PodSandboxFilter()) is None
    assert sandbox_state_from(pb.PodSandboxFilter(state=pb.PodSandboxStateValue())) == "ready"
    assert container_state_from(pb.ContainerFilter()) is None
    assert container_state_from(pb.ContainerFilter(state=pb.ContainerStateValue())) == "created"
    with pytest.raises(InvalidArgument, match=r"filter\.state: 5"):
        sandbox_state_from(pb.PodSandboxFilter(state=pb.PodSandboxStateValue(state=unknown(5))))


def test_a_pod_status_is_complete() -> None:
    options = pb.NamespaceOption(pid=pb.CONTAINER, ipc=pb.NODE)
    config = sandbox_config_from(pod_security(namespace_options=options))
    record = SandboxRecord(
        id="s",
        config=config,
        created_at=5,
        runtime_handler="strict",
        ips=("1.2.3.4", "fd::1"),
    )
    status = sandbox_status_message(record)
    assert (status.id, status.state, status.created_at, status.runtime_handler) == ("s", 0, 5, "strict")
    assert (status.metadata.name, status.metadata.uid, status.metadata.namespace) == ("pod", "u", "n")
    assert status.network.ip == "1.2.3.4" and [ip.ip for ip in status.network.additional_ips] == ["fd::1"]
    echoed = status.linux.namespaces.options
    assert (echoed.network, echoed.pid, echoed.ipc) == (pb.POD, pb.CONTAINER, pb.NODE)
    assert sandbox_message(record).state == pb.SANDBOX_READY


def test_the_hosts_network_has_no_pod_address() -> None:
    config = sandbox_config_from(pod_security(namespace_options=pb.NamespaceOption(network=pb.NODE)))
    status = sandbox_status_message(SandboxRecord(id="s", config=config, created_at=1, ips=("1.2.3.4",)))
    assert status.network.ip == ""
    assert status.linux.namespaces.options.network == pb.NODE


def test_a_container_status_is_complete() -> None:
    message = container_config(labels={"a": "b"}, annotations={"c": "d"}, log_path="0.log")
    record = record_of(
        message,
        started_at=2,
        finished_at=3,
        exit_code=137,
        state="exited",
        reason="OOMKilled",
        message="m",
        log_path="/logs/0.log",
        process=ProcessRef(pid=9, start_time=1),
        user=User(uid=1000, gid=5, groups=(5, 6)),
        stop_signal="SIGQUIT",
        resources=Resources(cpu_shares=2, memory_limit=1 << 20),
    )
    status = container_status_message(record)
    assert (status.created_at, status.started_at, status.finished_at, status.exit_code) == (1, 2, 3, 137)
    assert (status.state, status.reason, status.message) == (pb.CONTAINER_EXITED, "OOMKilled", "m")
    assert (status.image.image, status.image_ref, status.image_id) == (
        record.image_name,
        "r@sha256:m",
        "sha256:i",
    )
    assert (dict(status.labels), dict(status.annotations)) == ({"a": "b"}, {"c": "d"})
    assert (status.metadata.name, status.metadata.attempt, status.log_path) == ("main", 1, "/logs/0.log")
    assert (status.user.linux.uid, status.user.linux.gid) == (1000, 5)
    assert list(status.user.linux.supplemental_groups) == [5, 6]
    assert (status.resources.linux.cpu_shares, status.resources.linux.memory_limit_in_bytes) == (2, 1 << 20)
    assert status.stop_signal == pb.SIGQUIT
    assert container_message(record).image_id == "sha256:i"


@pytest.mark.parametrize(
    ("user", "uid", "username"),
    [
        ("", None, ""),
        ("1002", 1002, ""),
        ("1003:1004", 1003, ""),
        ("www-data:x", None, "www-data"),
        ("9" * 5000, None, "9" * 5000),
    ],
)
def test_an_image_has_a_uid_or_a_username(user: str, uid: int | None, username: str) -> None:
    message = image_message(Image(id="i", size=1, config=ImageConfig(user=user)))
    assert message.username == username
    assert message.HasField("uid") == (uid is not None) and message.uid.value == (uid or 0)

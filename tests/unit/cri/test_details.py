"""What verbose answers hold for scripts that were written for containerd."""

from __future__ import annotations

import json
from typing import Any

from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.codec import replace
from phantom_cri.cri.convert.container import container_config_from
from phantom_cri.cri.convert.details import container_details, plain, sandbox_details
from phantom_cri.cri.convert.sandbox import sandbox_config_from, sandbox_status_message
from phantom_cri.model import ContainerRecord, PolicyRef, ProcessRef, SandboxRecord, User

POD = pb.PodSandboxConfig(
    metadata=pb.PodSandboxMetadata(name="p", uid="u", namespace="n", attempt=1),
    hostname="h",
    log_directory="/logs",
    dns_config=pb.DNSConfig(servers=["192.0.2.1"], options=["ndots:2"]),
    port_mappings=[pb.PortMapping(protocol=pb.UDP, container_port=53, host_port=5353, host_ip="127.0.0.1")],
    labels={"a": "b"},
    linux=pb.LinuxPodSandboxConfig(
        cgroup_parent="/pods/p",
        sysctls={"net.ipv4.ip_forward": "1"},
        security_context=pb.LinuxSandboxSecurityContext(
            run_as_user=pb.Int64Value(value=7),
            selinux_options=pb.SELinuxOption(level="s0"),
            namespace_options=pb.NamespaceOption(
                pid=pb.NODE,
                userns_options=pb.UserNamespace(
                    mode=pb.POD, uids=[pb.IDMapping(host_id=1000, container_id=0, length=65536)]
                ),
            ),
            seccomp=pb.SecurityProfile(profile_type=pb.SecurityProfile.Localhost, localhost_ref="x.json"),
            apparmor=pb.SecurityProfile(profile_type=pb.SecurityProfile.Unconfined),
        ),
    ),
)
CONTAINER = pb.ContainerConfig(
    metadata=pb.ContainerMetadata(name="c", attempt=2),
    image=pb.ImageSpec(image="busybox", user_specified_image="busybox:latest"),
    command=["sh"],
    working_dir="/tmp",
    envs=[pb.KeyValue(key="TOKEN", value=b"geheim\xff")],
    mounts=[pb.Mount(host_path="/data", container_path="/d", readonly=True)],
    devices=[pb.Device(host_path="/dev/null", container_path="/dev/n", permissions="r")],
    CDI_devices=[pb.CDIDevice(name="vendor.com/gpu=0")],
    linux=pb.LinuxContainerConfig(
        resources=pb.LinuxContainerResources(memory_limit_in_bytes=1 << 20, unified={"memory.high": "1"}),
        security_context=pb.LinuxContainerSecurityContext(
            capabilities=pb.Capability(add_capabilities=["NET_RAW"], drop_capabilities=["ALL"]),
            run_as_user=pb.Int64Value(value=7),
            supplemental_groups_policy=pb.Strict,
            masked_paths=["/proc/kcore"],
            apparmor=pb.SecurityProfile(profile_type=pb.SecurityProfile.Unconfined),
        ),
    ),
)


def pod_record(**fields: Any) -> SandboxRecord:
    record = SandboxRecord(id="s", config=sandbox_config_from(POD), created_at=1, ips=("10.0.0.2", "fd00::2"))
    return replace(record, fragment=ProcessRef(pid=42, start_time=1), cgroup_parent="/pods/p", **fields)


def container_record(**fields: Any) -> ContainerRecord:
    record = ContainerRecord(
        id="c",
        sandbox_id="s",
        config=container_config_from(CONTAINER),
        image_id="sha256:i",
        image_ref="",
        image_name="busybox:latest",
        created_at=1,
        user=User(uid=7, gid=5, groups=(5,)),
        cgroup="/pods/p/c",
    )
    return replace(record, process=ProcessRef(pid=43, start_time=1), **fields)


def info(details: dict[str, str]) -> Any:
    return json.loads(details["info"])


def paths(shown: Any) -> dict[str, str]:
    return {one["type"]: one["path"] for one in shown["runtimeSpec"]["linux"]["namespaces"]}


def test_a_pod_shows_its_request_in_the_words_of_cri() -> None:
    assert info(sandbox_details(pod_record()))["config"] == plain(POD)


def test_a_container_shows_its_request_in_the_words_of_cri_without_values_of_its_environment() -> None:
    text = container_details(container_record())["info"]
    assert "geheim" not in text
    expected = plain(CONTAINER) | {"envs": [{"key": "TOKEN"}]}
    assert json.loads(text)["config"] == expected


def test_a_request_that_says_little_shows_little() -> None:
    message = pb.ContainerConfig(metadata=pb.ContainerMetadata(name="c"), image=pb.ImageSpec(image="i"))
    shown = info(container_details(container_record(config=container_config_from(message))))["config"]
    assert shown == {"metadata": {"name": "c"}, "image": {"image": "i"}, "linux": {}}


def test_numbers_stay_numbers() -> None:
    resources = info(container_details(container_record()))["config"]["linux"]["resources"]
    assert resources == {"memory_limit_in_bytes": 1 << 20, "unified": {"memory.high": "1"}}


def test_scripts_find_the_pid_and_the_namespaces() -> None:
    pod = info(sandbox_details(pod_record()))
    assert (pod["pid"], pod["processStatus"]) == (42, "running")
    assert paths(pod)["network"] == "/proc/42/ns/net"
    container = info(container_details(container_record(state="running")))
    assert container["pid"] == 43
    assert paths(container)["mount"] == "/proc/43/ns/mnt"
    assert container["runtimeSpec"]["linux"]["cgroupsPath"] == "/pods/p/c"


def test_a_container_shows_its_policy() -> None:
    record = container_record(policy=PolicyRef(name="strict", hash="ab" * 32))
    assert info(container_details(record))["policy"] == {"name": "strict", "hash": "ab" * 32}
    assert info(container_details(container_record()))["policy"] is None


def test_what_has_ended_has_no_pid_no_namespaces_and_no_addresses() -> None:
    stopped = pod_record(state="notready")
    pod = info(sandbox_details(stopped))
    assert (pod["pid"], pod["processStatus"], paths(pod)) == (0, "deleted", {})
    container = info(container_details(container_record(state="exited")))
    assert (container["pid"], paths(container)) == (0, {})
    network = sandbox_status_message(stopped).network
    assert (network.ip, list(network.additional_ips)) == ("", [])

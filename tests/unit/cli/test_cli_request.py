"""The flags of `phantom run` as CRI messages: wrong ones first."""

from __future__ import annotations

from argparse import Namespace

import pytest

from phantom_cri.api.cri.v1 import api_pb2 as cri
from phantom_cri.api.phantom.v1 import node_pb2 as wire
from phantom_cri.cli import request
from phantom_cri.cli.arguments import build_parser
from phantom_cri.cli.failure import Failure

POLICY = wire.Policy(name="p", default=True, masked_paths=["/proc/x"], readonly_paths=["/proc/y"])


def parse(*flags: str) -> Namespace:
    return build_parser().parse_args(["run", *flags, "busybox:1"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--name", "../x"), "--name: must be"),
        (("-v", "/a"), "--volume: must be"),
        (("-v", "/a:b"), "--volume: must be"),
        (("-v", "/a:/b:exec"), "--volume: unknown option 'exec'"),
        (("-p", "80"), "--publish: must be"),
        (("-p", "0:80"), "--publish: must be"),
        (("-p", "80:70000"), "--publish: must be"),
        (("-p", "80:80/icmp"), "--publish: must be"),
        (("-p", "host:80:80"), "--publish: must be"),
        (("-p", "80:80", "--network", "host"), "--publish: a pod in the node's network"),
        (("-m", "1x"), "--memory: must be"),
        (("-m", "0"), "--memory: must be"),
        (("--cpus", "0.001"), "--cpus: must be"),
        (("--cpus", "-1"), "--cpus: must be"),
        (("--cpus", "nan"), "--cpus: must be"),
        (("-u", ":5"), "--user: must be"),
        (("-u", "root:wheel"), "--user: must be"),
        (("-e", "=x"), "--env: must be"),
        (("-l", "=x"), "--label: must be"),
        (("--security-opt", "apparmor=x"), "--security-opt: must be"),
        (("--security-opt", "seccomp="), "--security-opt: must be"),
        (("--security-opt", "no-new-privileges=false"), "--security-opt: must be"),
    ],
)
def test_refuses_by_flag(flags: tuple[str, ...], message: str) -> None:
    args = parse(*flags)
    with pytest.raises(Failure, match=message):
        request.pod_config(args)
        request.container_config(args, "", "x", wire.Policy())


def test_pod() -> None:
    args = parse(
        "--name", "a_b", "-p", "[::1]:8080:80/UDP", "-p", "443:4430", "--network", "pod", "-l", "k=v=w"
    )
    pod = request.pod_config(args)
    assert (pod.metadata.name, pod.hostname, pod.metadata.namespace) == ("a_b", "a-b", "default")
    assert [(p.host_ip, p.host_port, p.container_port, p.protocol) for p in pod.port_mappings] == [
        ("::1", 8080, 80, cri.Protocol.UDP),
        ("", 443, 4430, cri.Protocol.TCP),
    ]
    assert dict(pod.labels) == {"phantom.run": "true", "k": "v=w"}
    assert pod.log_directory == f"/var/log/phantom/a_b_{pod.metadata.uid}"
    assert pod.annotations[request.LOG_DIRECTORY] == pod.log_directory
    assert pod.linux.security_context.HasField("seccomp")


def test_the_nodes_network() -> None:
    pod = request.pod_config(parse("--network", "host"))
    assert pod.hostname == ""
    assert pod.linux.security_context.namespace_options.network == cri.NamespaceMode.NODE


def test_two_runs_of_one_image_have_other_names() -> None:
    names = {request.pod_config(parse()).metadata.name for _ in range(4)}
    assert len(names) == 4
    assert all(name.startswith("busybox-") for name in names)


def test_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "from here")
    monkeypatch.delenv("ABSENT", raising=False)
    args = parse(
        *(
            "-e",
            "A=b=c",
            "-e",
            "MINE",
            "-e",
            "ABSENT",
            "-v",
            "/src:/dst:ro,rslave",
            "-v",
            "/rw:/rw",
            "-w",
            "/work",
        ),
        *("-m", "1.5g", "--cpus", "0.5", "--read-only", "--cap-add", "cap_net_raw", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined", "-u", "1000:50"),
    )
    made = request.container_config(args, "sha256:x", "job", POLICY)
    assert (made.image.image, made.image.user_specified_image) == ("sha256:x", "busybox:1")
    assert [(e.key, e.value) for e in made.envs] == [("A", b"b=c"), ("MINE", b"from here"), ("ABSENT", b"")]
    first, second = made.mounts
    assert (first.host_path, first.container_path, first.readonly) == ("/src", "/dst", True)
    assert first.propagation == cri.MountPropagation.PROPAGATION_HOST_TO_CONTAINER
    assert not second.readonly
    limits, security = made.linux.resources, made.linux.security_context
    assert (limits.memory_limit_in_bytes, limits.cpu_quota, limits.cpu_period) == (3 << 29, 50_000, 100_000)
    assert security.readonly_rootfs and security.no_new_privs
    assert list(security.capabilities.add_capabilities) == ["NET_RAW"]
    assert list(security.capabilities.drop_capabilities) == ["ALL"]
    assert security.seccomp.profile_type == cri.SecurityProfile.ProfileType.Unconfined
    assert (security.run_as_user.value, security.run_as_group.value) == (1000, 50)
    assert (list(security.masked_paths), list(security.readonly_paths)) == (["/proc/x"], ["/proc/y"])


def test_defaults_are_confined() -> None:
    security = request.container_config(parse("-u", "www"), "x", "x", POLICY).linux.security_context
    assert security.HasField("seccomp")
    assert security.seccomp.profile_type == cri.SecurityProfile.ProfileType.RuntimeDefault
    assert security.run_as_username == "www"
    assert not security.HasField("run_as_user")
    assert list(security.readonly_paths) == ["/proc/y"]
    localhost = request.container_config(
        parse("--security-opt", "seccomp=/p.json"), "x", "x", POLICY
    ).linux.security_context
    assert localhost.seccomp.localhost_ref == "/p.json"

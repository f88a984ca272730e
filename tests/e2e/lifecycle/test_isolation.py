"""What a container may do, and what it sees: user, capabilities, seccomp, paths, environment, devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Container, Pod, linux, refusal
from tests.e2e.lifecycle.conftest import PodMaker

pytestmark = pytest.mark.root

DEFAULT_CAPABILITIES = 0xA80425FB  # Docker's fourteen
ALL_CAPABILITIES = (1 << int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1) - 1


def held_here(name: str) -> int:
    """A mask in /proc/self/status: where the tests themselves lack a capability, no container gets it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1], 16)


def process_status(container: Container) -> dict[str, str]:
    lines = container.tell("cat /proc/self/status").splitlines()
    return {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}


def mask(status: dict[str, str], name: str) -> int:
    return int(status[name], 16)


def secured(pod: Pod, **security: Any) -> Container:
    return pod.start("sleep 100", linux=linux(**security))


def test_a_usual_container(pod: Pod) -> None:
    status = process_status(secured(pod))
    assert mask(status, "CapBnd") == mask(status, "CapEff") == mask(status, "CapPrm") == DEFAULT_CAPABILITIES
    assert mask(status, "CapInh") == mask(status, "CapAmb") == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("0", "2")
    assert status["Uid"].split() == ["0"] * 4


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], ["ALL"], 0),
        (["ALL"], [], ALL_CAPABILITIES),
        (["net_admin"], ["ALL"], 1 << 12),
        (["SYS_TIME", "FLY"], ["KILL", "SWIM"], (DEFAULT_CAPABILITIES | 1 << 25) & ~(1 << 5)),
        (["SYS_CHROOT"], ["KILL"], DEFAULT_CAPABILITIES & ~(1 << 5)),
        (["ALL"], ["CHOWN"], ALL_CAPABILITIES & ~1),
    ],
)
def test_capabilities(pod: Pod, add: list[str], drop: list[str], expected: int) -> None:
    asked = pb.Capability(add_capabilities=add, drop_capabilities=drop)
    status = process_status(secured(pod, capabilities=asked))
    assert mask(status, "CapBnd") == mask(status, "CapEff") == expected & held_here("CapBnd")


def test_a_user_has_no_capabilities_but_ambient_ones(pod: Pod) -> None:
    user = pb.Int64Value(value=33)
    assert mask(process_status(secured(pod, run_as_user=user)), "CapEff") == 0
    ambient = pb.Capability(
        add_ambient_capabilities=["NET_BIND_SERVICE"], add_capabilities=["NET_BIND_SERVICE"]
    )
    status = process_status(secured(pod, run_as_user=user, capabilities=ambient))
    assert mask(status, "CapEff") == mask(status, "CapAmb") == 1 << 10


@pytest.mark.parametrize(
    ("asked", "uid", "groups"),
    [
        ({}, 0, [0]),
        ({"run_as_user": pb.Int64Value(value=33)}, 33, [33]),
        ({"run_as_user": pb.Int64Value(value=4711)}, 4711, [0]),
        ({"run_as_username": "www-data"}, 33, [33]),
        ({"run_as_user": pb.Int64Value(value=33), "run_as_group": pb.Int64Value(value=44)}, 33, [44]),
        ({"run_as_username": "nobody", "supplemental_groups": [7, 9]}, 65534, [65534, 7, 9]),
        (
            {
                "run_as_user": pb.Int64Value(value=33),
                "supplemental_groups": [8],
                "supplemental_groups_policy": pb.SupplementalGroupsPolicy.Strict,
            },
            33,
            [33, 8],
        ),
    ],
)
def test_user_and_groups(pod: Pod, asked: dict[str, Any], uid: int, groups: list[int]) -> None:
    container = secured(pod, **asked)
    assert int(container.tell("id -u")) == uid
    assert sorted(map(int, container.tell("id -G").split())) == sorted(groups)
    told = container.status.user.linux
    assert (told.uid, told.gid, sorted(told.supplemental_groups)) == (uid, groups[0], sorted(groups))


def test_no_new_privileges(pod: Pod) -> None:
    assert process_status(secured(pod, no_new_privs=True))["NoNewPrivs"] == "1"


def test_seccomp_that_is_not_given_is_unconfined(pod: Pod) -> None:
    assert process_status(secured(pod, seccomp=None))["Seccomp"] == "0"
    unconfined = pb.SecurityProfile(profile_type=pb.SecurityProfile.Unconfined)
    assert process_status(secured(pod, seccomp=unconfined))["Seccomp"] == "0"


def test_the_default_seccomp_profile_holds(pod: Pod) -> None:
    """unshare(2) of a user namespace needs no capability, so it is the filter that refuses it."""
    assert secured(pod).exec("unshare", "-U", "true").exit_code != 0
    assert secured(pod, seccomp=None).exec("unshare", "-U", "true").exit_code == 0


def test_a_seccomp_profile_of_the_node(pod: Pod, tmp_path: Path) -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW"}
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    (tmp_path / "profile.json").write_text(json.dumps({**profile, "syscalls": [rule]}))
    localhost = pb.SecurityProfile(
        profile_type=pb.SecurityProfile.Localhost, localhost_ref=str(tmp_path / "profile.json")
    )
    container = secured(pod, seccomp=localhost)
    answer = container.exec("mkdir /made")
    assert answer.exit_code != 0
    assert b"No space left" in answer.stderr


@pytest.mark.parametrize("content", [None, "not json", '{"defaultAction": "SCMP_ACT_FLY"}'])
def test_a_bad_seccomp_profile_is_refused_by_name(pod: Pod, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "profile.json"
    if content is not None:
        path.write_text(content)
    localhost = pb.SecurityProfile(profile_type=pb.SecurityProfile.Localhost, localhost_ref=str(path))
    _, text = refusal(lambda: secured(pod, seccomp=localhost))
    assert str(path) in text


def test_masked_and_read_only_paths(pod: Pod) -> None:
    container = secured(
        pod, masked_paths=["/etc/passwd", "/usr/bin", "/not/there"], readonly_paths=["/etc/group", "/tmp"]
    )
    assert container.tell("cat /etc/passwd") == ""
    assert container.tell("ls /usr/bin") == ""
    assert container.exec("touch /usr/bin/x").exit_code != 0
    assert container.exec("echo x > /etc/group").exit_code != 0
    assert container.exec("touch /tmp/x").exit_code != 0
    assert container.exec("echo x > /proc/sys/kernel/domainname").exit_code == 0, "lists replace the default"


def test_the_usual_masks(pod: Pod) -> None:
    container = secured(pod)
    assert container.tell("cat /proc/keys; ls /sys/firmware") == ""
    for path in ("/proc/sys/kernel/domainname", "/proc/sysrq-trigger", "/sys/kernel/profiling"):
        assert container.exec(f"echo x > {path}").exit_code != 0, path


def test_a_read_only_root(pod: Pod, tmp_path: Path) -> None:
    mount = pb.Mount(container_path="/data", host_path=str(tmp_path))
    container = pod.start("sleep 100", linux=linux(readonly_rootfs=True), mounts=[mount])
    for path in ("/x", "/etc/x", "/tmp/x"):
        assert container.exec("touch", path).exit_code != 0, path
    for path in ("/data/x", "/dev/shm/x"):
        assert container.exec("touch", path).exit_code == 0, path


def privileged_pod(make_pod: PodMaker) -> Pod:
    context = pb.LinuxSandboxSecurityContext(privileged=True)
    return make_pod(linux=pb.LinuxPodSandboxConfig(security_context=context))


def test_privileged(make_pod: PodMaker) -> None:
    container = secured(privileged_pod(make_pod), privileged=True)
    status = process_status(container)
    assert mask(status, "CapEff") == mask(status, "CapBnd") == ALL_CAPABILITIES & held_here("CapBnd")
    assert status["Seccomp"] == "0"
    assert (
        container.exec("mount -t tmpfs tmpfs /mnt-of-mine 2>&1 || mkdir /m && mount -t tmpfs t /m").exit_code
        == 0
    )
    assert container.exec("echo x > /proc/sys/kernel/domainname").exit_code == 0
    assert "fuse" in container.tell("ls /dev"), "it has the node's devices"


def test_a_privileged_container_needs_a_privileged_pod(pod: Pod) -> None:
    code, text = refusal(lambda: secured(pod, privileged=True))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "privileged" in text


def test_a_device(pod: Pod) -> None:
    device = pb.Device(host_path="/dev/fuse", container_path="/dev/mine", permissions="rw")
    container = pod.start("sleep 100", devices=[device])
    plain = pod.start("sleep 100")
    assert container.exec("sh", "-c", "exec 3<>/dev/mine").exit_code == 0
    assert container.exec("sh", "-c", "exec 3<>/dev/null").exit_code == 0
    assert plain.exec("test -e /dev/fuse").exit_code == 1
    made = plain.exec("mknod /tmp/fuse c 10 229 && exec 3<>/tmp/fuse")
    assert made.exit_code != 0, "a node that it made itself is of no use"
    assert b"not permitted" in made.stderr


def test_a_device_that_is_not_there_is_refused(pod: Pod) -> None:
    device = pb.Device(host_path="/dev/nothing-here", container_path="/dev/x", permissions="rw")
    _, text = refusal(lambda: pod.create("true", devices=[device]))
    assert "/dev/nothing-here" in text


def test_environment(pod: Pod) -> None:
    envs = [
        pb.KeyValue(key="PLAIN", value=b"a b=c"),
        pb.KeyValue(key="EMPTY", value=b""),
        pb.KeyValue(key="BYTES", value=b"\xff\xfe"),
        pb.KeyValue(key="PLAIN", value=b"later wins"),
    ]
    container = pod.start("sleep 100", envs=envs)
    variables = dict(
        line.split(b"=", 1) for line in container.exec("tr '\\0' '\\n' < /proc/1/environ").stdout.splitlines()
    )
    assert variables[b"PLAIN"] == b"later wins"
    assert (variables[b"EMPTY"], variables[b"BYTES"]) == (b"", b"\xff\xfe")
    assert variables[b"HOSTNAME"] == pod.id[:12].encode()
    assert variables[b"HOME"] == b"/root"
    assert b"/usr/bin" in variables[b"PATH"].split(b":")


def test_working_folder(pod: Pod) -> None:
    assert pod.run("pwd").output == "/"
    assert pod.run("pwd", working_dir="/usr/bin").output == "/usr/bin"
    assert pod.run("pwd", working_dir="/made/for/it").output == "/made/for/it"


def test_only_stdin_out_and_err_are_open(pod: Pod) -> None:
    assert pod.run("ls /proc/$$/fd; readlink /proc/$$/fd/0").output.split()[-1] == "/dev/null"
    assert set(pod.run(["ls", "/proc/self/fd"]).output.split()) <= {"0", "1", "2", "3"}


def test_command_and_args(pod: Pod) -> None:
    assert pod.run(["echo", "a"], args=["b c", "", "$HOME"]).output == "a b c  $HOME"


def test_oom_score(pod: Pod) -> None:
    made = linux()
    made.resources.oom_score_adj = 777
    container = pod.start("sleep 100", linux=made)
    assert container.tell("cat /proc/1/oom_score_adj; cat /proc/self/oom_score_adj").split() == ["777"] * 2

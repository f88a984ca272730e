"""Fields of the security context: what a container gets of them, and what is refused when it is created."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness.daemon import Daemon
from harness.image import GROUP, PASSWD, ImageConfig, LayerBuilder, busybox_layer, write_layout
from harness.registry import Registry
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Container, Cri, Pod, linux, refusal
from tests.e2e.lifecycle.conftest import PodMaker

pytestmark = pytest.mark.root

NET_BIND_SERVICE = 1 << 10


def secured(pod: Pod, **security: Any) -> Container:
    return pod.start("sleep 100", linux=linux(**security))


def status_of(container: Container) -> dict[str, str]:
    lines = container.tell("cat /proc/self/status").splitlines()
    return {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}


@pytest.fixture
def predefined_group(cri: Cri, registry: Registry, tmp_path: Path) -> Iterator[pb.ImageSpec]:
    """Its user 1000 is in a group of the image's, 50000."""
    files = LayerBuilder().file("etc/passwd", PASSWD + "default-user:x:1000:1000::/home:/bin/sh\n")
    files.file("etc/group", GROUP + "default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n")
    write_layout(tmp_path / "layout", [busybox_layer(), files.finish()], ImageConfig(user="1000"))
    of_others = cri.image
    image = pb.ImageSpec(image=cri.pull(registry.push(tmp_path / "layout", "predefined-group")))
    cri.image = of_others
    yield image
    cri.images.RemoveImage(pb.RemoveImageRequest(image=image))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (pb.SupplementalGroupsPolicy.Merge, [1000, 1234, 50000]),
        (pb.SupplementalGroupsPolicy.Strict, [1000, 1234]),
    ],
)
def test_supplemental_groups(
    pod: Pod, predefined_group: pb.ImageSpec, policy: pb.SupplementalGroupsPolicy, expected: list[int]
) -> None:
    user = pb.Int64Value(value=1000)
    asked = linux(run_as_user=user, supplemental_groups=[1234], supplemental_groups_policy=policy)
    container = pod.start("id -G; sleep 100", image=predefined_group, linux=asked)
    container.wait_output(" ".join(map(str, expected)))
    assert container.output == container.tell("id -G") == " ".join(map(str, expected))
    told = container.status.user.linux
    assert (told.uid, told.gid, list(told.supplemental_groups)) == (1000, 1000, expected)


def test_a_group_without_a_user_is_refused(pod: Pod) -> None:
    code, text = refusal(lambda: pod.create("true", linux=linux(run_as_group=pb.Int64Value(value=1002))))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "run_as_group" in text


def test_ambient_capabilities(pod: Pod) -> None:
    """A user's processes keep them over execve, in an exec as well."""
    asked = pb.Capability(add_ambient_capabilities=["NET_BIND_SERVICE"], drop_capabilities=["KILL"])
    container = secured(pod, run_as_user=pb.Int64Value(value=33), capabilities=asked)
    for status in (status_of(container), dict_of(container.tell("cat /proc/1/status"))):
        for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            assert int(status[name], 16) == NET_BIND_SERVICE, name
        assert not int(status["CapBnd"], 16) & 1 << 5


def dict_of(text: str) -> dict[str, str]:
    return {key: value.strip() for key, value in (line.split(":", 1) for line in text.splitlines())}


@pytest.mark.parametrize("field", ["add_capabilities", "drop_capabilities", "add_ambient_capabilities"])
def test_an_unknown_capability_is_ignored_with_a_warning(pod: Pod, node: Daemon, field: str) -> None:
    asked = pb.Capability(**{field: ["FLY"]})
    container = pod.run("grep Cap /proc/self/status", linux=linux(capabilities=asked))
    assert container.output == pod.run("grep Cap /proc/self/status").output
    assert f"container {container.id}: capabilities unknown to this kernel: FLY" in node.log_text()


@pytest.mark.parametrize("path", ["profiles/audit.json", "../x.json", "/nowhere/x.json", "/", "/dev/zero"])
def test_a_seccomp_profile_that_is_none_is_refused_when_created(pod: Pod, path: str) -> None:
    localhost = pb.SecurityProfile(profile_type=pb.SecurityProfile.Localhost, localhost_ref=path)
    code, text = refusal(lambda: pod.create("true", linux=linux(seccomp=localhost)))
    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert "seccomp" in text
    assert repr(path) in text
    assert not pod.cri.containers()


def test_proc_unmasked(pod: Pod) -> None:
    """No lists, no such mounts: procMount Unmasked."""
    container = secured(pod, masked_paths=[], readonly_paths=[])
    points = [line.split()[4] for line in container.tell("cat /proc/self/mountinfo").splitlines()]
    assert [point for point in points if point.startswith("/proc")] == ["/proc"]
    assert container.exec("echo x > /proc/sys/kernel/domainname").exit_code == 0


def test_a_privileged_container_goes_without_masks_whatever_is_sent(make_pod: PodMaker) -> None:
    context = pb.LinuxSandboxSecurityContext(privileged=True)
    container = secured(make_pod(linux=pb.LinuxPodSandboxConfig(security_context=context)), privileged=True)
    points = [line.split()[4] for line in container.tell("cat /proc/self/mountinfo").splitlines()]
    assert [point for point in points if point.startswith("/proc")] == ["/proc"]


@pytest.mark.skipif(Path("/sys/fs/selinux/enforce").exists(), reason="this host has SELinux")
def test_without_selinux_labels_are_ignored(daemon: Daemon, busybox_image: str, tmp_path: Path) -> None:
    """As by the peers; Kubernetes' conformance tests send `level: s0`. A volume to relabel stays as it is."""
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/file").write_text("content")
    volume = pb.Mount(host_path=str(tmp_path / "volume"), container_path="/volume", selinux_relabel=True)
    with closing(Cri(daemon.endpoint)) as cri:
        cri.pull(busybox_image)
        for options in ({"level": "s0"}, {"type": "container_t"}, {"user": "u"}, {"role": "r"}):
            label = pb.SELinuxOption(**options)
            context = pb.LinuxSandboxSecurityContext(selinux_options=label)
            pod = cri.pod(tmp_path, linux=pb.LinuxPodSandboxConfig(security_context=context)).run_sandbox()
            container = pod.start("sleep 100", mounts=[volume], linux=linux(selinux_options=label))
            assert container.tell("cat /volume/file") == "content"
            pod.remove()
    assert not os.listxattr(tmp_path / "volume/file")
    assert daemon.log_text().count("selinux_options are ignored") == 1


# --- devices ---------------------------------------------------------------


@pytest.fixture
def block_device(tmp_path: Path) -> Iterator[Path]:
    """A loop device of its own, that only root may use."""
    backing = tmp_path / "backing"
    backing.write_bytes(b"content of the device".ljust(1 << 20, b"\0"))
    found = subprocess.run(
        ["losetup", "--find", "--show", backing], capture_output=True, text=True, check=True
    )
    yield Path(found.stdout.strip())
    subprocess.run(["losetup", "--detach", found.stdout.strip()], check=True)


@pytest.mark.parametrize("permissions", ["r", "w", "m", "rw", "rm", "wm", "rwm"])
def test_permissions_of_a_device(pod: Pod, block_device: Path, permissions: str) -> None:
    """As with the peers any container may make nodes; what counts is what they let it do."""
    device = pb.Device(host_path=str(block_device), container_path="/dev/disk", permissions=permissions)
    container = pod.start("sleep 100", devices=[device])
    number = block_device.stat().st_rdev
    container.tell(f"mknod /tmp/again b {os.major(number)} {os.minor(number)}")
    for node in ("/dev/disk", "/tmp/again"):
        for letter, script in {
            "r": f"head -c 7 {node}",
            "w": f"dd if=/dev/zero of={node} bs=512 count=1 seek=9 conv=notrunc",
        }.items():
            answer = container.exec(script)
            assert (answer.exit_code == 0) == (letter in permissions), (letter, answer.stderr)
            if letter not in permissions:
                assert b"not permitted" in answer.stderr, letter


def test_a_folder_of_devices_and_a_link_to_one(pod: Pod, block_device: Path, tmp_path: Path) -> None:
    folder = tmp_path / "nodes"
    (folder / "deep").mkdir(parents=True)
    os.mknod(folder / "deep" / "zero", stat.S_IFCHR | 0o640, os.makedev(1, 5))
    os.chown(folder / "deep" / "zero", 33, 44)
    os.mknod(folder / "disk", stat.S_IFBLK | 0o600, block_device.stat().st_rdev)
    (folder / "not a device").write_text("x")
    (tmp_path / "link").symlink_to(folder / "disk")
    devices = [
        pb.Device(host_path=str(folder), container_path="/dev/many", permissions="r"),
        pb.Device(host_path=str(tmp_path / "link"), container_path="/dev/linked", permissions="r"),
    ]
    container = pod.start("sleep 100", devices=devices)
    assert container.tell("find /dev/many /dev/linked | sort").split() == [
        "/dev/linked",
        "/dev/many",
        "/dev/many/deep",
        "/dev/many/deep/zero",
        "/dev/many/disk",
    ]
    assert container.tell("stat -c '%a %u %g %F' /dev/many/deep/zero") == "640 33 44 character special file"
    assert container.tell("head -c 7 /dev/linked") == "content"
    assert container.exec("echo x > /dev/many/disk").exit_code != 0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"host_path": "/dev/null", "permissions": "x"}, "permissions"),
        ({"host_path": "", "permissions": "r"}, "host_path"),
        ({"host_path": "dev/null"}, "host_path"),
        ({"host_path": "/etc/passwd"}, "host_path"),
        ({"host_path": "/etc"}, "host_path"),
        ({"host_path": "/dev/null", "container_path": "dev/null"}, "container_path"),
    ],
)
def test_a_bad_device_is_refused_when_created(pod: Pod, fields: dict[str, str], field: str) -> None:
    code, text = refusal(lambda: pod.create("true", devices=[pb.Device(**fields)]))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "devices" in text
    assert field in text


# --- sysctls ---------------------------------------------------------------


def pod_with(make_pod: PodMaker, sysctls: dict[str, str], **namespaces: Any) -> Pod:
    context = pb.LinuxSandboxSecurityContext(namespace_options=pb.NamespaceOption(**namespaces))
    return make_pod(linux=pb.LinuxPodSandboxConfig(sysctls=sysctls, security_context=context))


def test_sysctls_of_the_pods_own(make_pod: PodMaker) -> None:
    sysctls = {
        "kernel.sem": "250 32000 32 129",
        "kernel.shmmni": "4000",
        "kernel.msgmax": "8193",
        "fs.mqueue.msg_max": "100",
        "net.ipv4.ip_unprivileged_port_start": "80",
        "net/ipv4/conf/eth0/forwarding": "0",
    }
    container = pod_with(make_pod, sysctls).start("sleep 100")
    for name, value in sysctls.items():
        path = name if "/" in name else name.replace(".", "/")
        assert container.tell(f"cat /proc/sys/{path}").split() == value.split(), name


@pytest.mark.parametrize(
    ("name", "namespaces"),
    [
        ("net.ipv4.ip_forward", {"network": pb.NODE}),
        ("net/ipv4/ip_forward", {"network": pb.NODE}),
        ("kernel.shmmax", {"ipc": pb.NODE}),
        ("kernel.sem", {"ipc": pb.NODE}),
        ("kernel.msgmnb", {"ipc": pb.NODE}),
        ("fs.mqueue.queues_max", {"ipc": pb.NODE}),
        ("kernel.hostname", {}),
        ("kernel.semx", {}),
        ("fs.file-max", {}),
        ("vm.swappiness", {}),
        ("user.max_net_namespaces", {}),
        ("net..ipv4", {}),
        ("", {}),
    ],
)
def test_sysctls_that_are_not_the_pods_are_refused(
    cri: Cri, make_pod: PodMaker, name: str, namespaces: dict[str, Any]
) -> None:
    code, text = refusal(lambda: pod_with(make_pod, {name: "1"}, **namespaces))
    assert (code, repr(name) in text) == (grpc.StatusCode.INVALID_ARGUMENT, True), text
    assert cri.pods() == set()


def test_a_sysctl_that_the_kernel_lacks_or_refuses_leaves_nothing(cri: Cri, make_pod: PodMaker) -> None:
    for sysctls in ({"net.ipv4.nonsense": "1"}, {"kernel.shmmni": "many"}):
        _, text = refusal(partial(pod_with, make_pod, sysctls))
        assert next(iter(sysctls)).replace(".", "/") in text
    assert cri.pods() == set()


# --- signals and limits ----------------------------------------------------


def test_each_stop_signal_is_told(pod: Pod) -> None:
    """All are asked for and told back; what some are in numbers, the next test sees."""
    for name, value in pb.Signal.items():
        if value != pb.RUNTIME_DEFAULT:
            assert pod.create("true", stop_signal=value).status.stop_signal == value, name
    assert pod.create("true").status.stop_signal == pb.SIGTERM


@pytest.mark.parametrize(
    ("name", "number"),
    [("USR1", 10), ("RTMIN", 34), ("RTMINPLUS3", 37), ("RTMAXMINUS14", 50), ("RTMAX", 64)],
)
def test_the_stop_signal_that_is_sent(pod: Pod, name: str, number: int) -> None:
    script = f"trap 'exit 77' {number}; echo ready; while :; do sleep 0.05; done"
    container = pod.start(script, stop_signal=pb.Signal.Value(f"SIG{name}"))
    container.wait_output("ready")
    container.stop(timeout=30)
    assert container.status.exit_code == 77


def test_a_stop_signal_that_kills(pod: Pod) -> None:
    container = pod.start("sleep 100", stop_signal=pb.SIGKILL)
    began = time.monotonic()
    container.stop(timeout=30)
    assert time.monotonic() - began < 10
    assert container.status.exit_code == 137


def test_a_stop_signal_of_no_kernel_is_refused(pod: Pod) -> None:
    code, text = refusal(lambda: pod.create("true", stop_signal=66))
    assert (code, "stop_signal" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)


def test_limits_are_those_that_the_daemon_was_started_with(node: Daemon, pod: Pod) -> None:
    """As with the peers; the daemon itself opens more files than the usual soft limit has room for."""
    container = pod.start("sleep 100")
    ours = Path("/proc/self/limits").read_text()  # the daemon is our child
    assert container.tell("cat /proc/self/limits") == ours.strip()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert resource.prlimit(node.running.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    assert container.tell("ulimit -n") == str(soft)

"""SELinux where the host has it: labels of processes and files, one level for each pod, what is refused."""

from __future__ import annotations

import json
import os
import re
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness.daemon import Daemon
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Container, Cri, Pod, linux, refusal
from tests.e2e.lifecycle.conftest import PodMaker

pytestmark = [pytest.mark.root, pytest.mark.kernel("selinux")]

SECOND = "s0:c7,c42"


def process_label(container: Container) -> str:
    return container.tell("cat /proc/self/attr/current").rstrip("\0\n")


def level_of(label: str) -> str:
    return label.split(":", 3)[3]


def label_of(path: Path) -> str:
    return os.getxattr(path, "security.selinux", follow_symlinks=False).rstrip(b"\0").decode()


def asking(**options: str) -> pb.LinuxContainerConfig:
    return linux(selinux_options=pb.SELinuxOption(**options))


def pod_asking(make_pod: PodMaker, **options: str) -> Pod:
    context = pb.LinuxSandboxSecurityContext(selinux_options=pb.SELinuxOption(**options))
    return make_pod(linux=pb.LinuxPodSandboxConfig(security_context=context))


def mount(path: Path, relabel: bool = True) -> list[pb.Mount]:
    return [pb.Mount(host_path=str(path), container_path="/volume", selinux_relabel=relabel)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"type": "nope_t"}, "selinux_options.type: 'nope_t'"),
        ({"level": "s0,c0,c5"}, "selinux_options.level: 's0,c0,c5'"),
        ({"level": "s0:c1,c5000"}, "selinux_options.level: 's0:c1,c5000'"),
        ({"user": "nobody_u"}, "selinux_options.user: 'nobody_u'"),
        ({"role": "nope_r"}, "selinux_options.role: "),
        ({"type": "container_file_t"}, "selinux_options: "),
    ],
)
def test_what_the_policy_lacks_is_refused(
    cri: Cri, make_pod: PodMaker, options: dict[str, str], words: str
) -> None:
    pod = make_pod()
    for call in (
        partial(pod_asking, make_pod, **options),
        partial(pod.create, "true", linux=asking(**options)),
    ):
        code, text = refusal(call)
        assert (code, words in text) == (grpc.StatusCode.INVALID_ARGUMENT, True), text
    assert not cri.containers()


def test_the_containers_of_a_pod_share_what_no_other_pod_has(make_pod: PodMaker) -> None:
    pods = [make_pod(), make_pod()]
    labels = [[process_label(pod.start("sleep 100")) for _ in range(2)] for pod in pods]
    assert all(len(set(of_pod)) == 1 for of_pod in labels)
    levels = {level_of(of_pod[0]) for of_pod in labels}
    assert len(levels) == 2
    for label in (labels[0][0], labels[1][0]):
        assert re.fullmatch(r"system_u:system_r:container_t:s0:c\d+,c\d+", label)


def test_the_first_process_an_exec_and_all_files_of_a_container(pod: Pod) -> None:
    container = pod.start("cat /proc/self/attr/current; echo; sleep 100")
    label = process_label(container)
    container.wait_output(label)
    file = f"system_u:object_r:container_file_t:{level_of(label)}"
    container.tell("echo > /new; echo > /dev/shm/new; echo > /dev/new")
    root = Path(f"/proc/{json.loads(container.details)['pid']}/root")
    made = ("new", "dev/new", "dev/shm/new")
    of_pod = ("etc/hosts", "etc/hostname", "etc/resolv.conf")
    for place in ("bin", "bin/sh", "dev", "dev/null", "dev/shm", "dev/mqueue", "dev/pts", *of_pod, *made):
        assert (place, label_of(root / place)) == (place, file)
    mounts = container.tell("cat /proc/mounts").splitlines()
    options = {line.split()[1]: line for line in mounts}
    for point in ("/", "/dev", "/dev/pts"):
        assert f'context="{file}"' in options[point] or f"context={file}" in options[point]


def test_parts_that_are_asked_for(make_pod: PodMaker) -> None:
    pod = pod_asking(make_pod, level=SECOND)
    assert process_label(pod.start("sleep 100")) == f"system_u:system_r:container_t:{SECOND}"
    own = pod.start("sleep 100", linux=asking(level="s0:c1,c2"))
    assert process_label(own) == "system_u:system_r:container_t:s0:c1,c2"
    free = pod.start("sleep 100", linux=asking(type="spc_t"))
    assert process_label(free) == f"system_u:system_r:spc_t:{SECOND}"


def test_volumes(make_pod: PodMaker, tmp_path: Path) -> None:
    """Relabelled if the request says so; the files of one pod are not another's."""
    (tmp_path / "volume/below").mkdir(parents=True)
    (tmp_path / "volume/below/file").write_text("content")
    (tmp_path / "outside").write_text("of the host")
    (tmp_path / "volume/link").symlink_to(tmp_path / "outside")
    before, outside = label_of(tmp_path / "volume"), label_of(tmp_path / "outside")
    make_pod().start("sleep 100", mounts=mount(tmp_path / "volume", relabel=False))
    assert label_of(tmp_path / "volume") == before
    pod = make_pod()
    container = pod.start("sleep 100", mounts=mount(tmp_path / "volume"))
    expected = f"system_u:object_r:container_file_t:{level_of(process_label(container))}"
    for path in (tmp_path / "volume", *(tmp_path / "volume").rglob("*")):
        assert label_of(path) == expected
    assert label_of(tmp_path / "outside") == outside
    assert container.tell("cat /volume/below/file && echo x > /volume/new && echo fine") == "contentfine"
    missing = tmp_path / "made"
    pod.start("sleep 100", mounts=mount(missing))
    assert label_of(missing) == expected


def test_a_path_of_the_host_gets_no_label_of_a_container(cri: Cri, pod: Pod) -> None:
    before = label_of(Path("/etc"))
    code, text = refusal(lambda: pod.create("true", mounts=mount(Path("/etc"))))
    assert (code, "mounts[0].selinux_relabel: /etc" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    assert label_of(Path("/etc")) == before
    assert not cri.containers()


def test_a_new_daemon_and_a_privileged_container(daemon: Daemon, busybox_image: str, tmp_path: Path) -> None:
    """The pod's level is kept; and one that nothing else holds in is not labelled as one that is."""
    context = pb.LinuxSandboxSecurityContext(privileged=True)
    with closing(Cri(daemon.endpoint)) as cri:
        cri.pull(busybox_image)
        pod = cri.pod(tmp_path, linux=pb.LinuxPodSandboxConfig(security_context=context)).run_sandbox()
        label = process_label(pod.start("sleep 100"))
        daemon.kill()
        daemon.restart()
        cri.wait_served()
        assert process_label(pod.start("sleep 100")) == label
        assert ":container_t:" not in process_label(pod.start("sleep 100", linux=linux(privileged=True)))
        pod.remove()


@pytest.mark.skipif(
    not Path("/sys/fs/selinux/enforce").exists() or Path("/sys/fs/selinux/enforce").read_text() != "1",
    reason="SELinux does not enforce here",
)
def test_what_is_enforced(make_pod: PodMaker, tmp_path: Path) -> None:
    """A file that was not made the pod's, and another pod's files."""
    volume = tmp_path / "volume"
    volume.mkdir(mode=0o777)
    (volume / "file").write_text("content")
    read = "cat /volume/file 2>&1; echo x 2>&1 > /volume/file; true"
    refused: Any = make_pod().run(read, mounts=mount(volume, relabel=False)).output
    assert "Permission denied" in refused
    assert (volume / "file").read_text() == "content"
    assert "content" in make_pod().run(read, mounts=mount(volume)).output
    assert "Permission denied" in make_pod().run(read, mounts=mount(volume, relabel=False)).output

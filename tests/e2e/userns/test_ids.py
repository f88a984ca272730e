"""Whose ids a pod with a user namespace has, seen from inside and from the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from harness.daemon import Daemon
from harness.image import ImageConfig, LayerBuilder, busybox_layer, write_layout
from harness.registry import Registry
from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Cri, Pod, linux, refusal
from tests.e2e.lifecycle.conftest import PodMaker
from tests.e2e.userns.conftest import (
    COUNT,
    FIRST,
    Sleeper,
    host_pid,
    id_mapping,
    inside,
    owner,
    sandbox,
    user_namespace,
)

pytestmark = [pytest.mark.root, pytest.mark.kernel("user_namespaces")]

INVALID = grpc.StatusCode.INVALID_ARGUMENT
ID = Path("/usr/bin/id")  # busybox's own gives the raised user up again
MAPS = "cat /proc/self/uid_map /proc/self/gid_map"


@pytest.fixture
def many_owners(cri: Cri, registry: Registry, tmp_path: Path) -> Iterator[str]:
    """An image whose files belong to many, among them one whom the pod's ids do not reach."""
    layer = LayerBuilder().directory("volume", uid=33, gid=33).directory("plain", uid=33, gid=33)
    for folder in ("volume", "plain"):
        for uid in (0, 33, 1000, COUNT - 1, COUNT, 4_000_000):
            layer.file(f"{folder}/{uid}", "x", uid=uid, gid=uid)
    upper = LayerBuilder().file("bin/raise", ID.read_bytes(), mode=0o4755)
    upper.file("plain/new", "y", uid=7, gid=8).file("volume/new", "y", uid=7, gid=8)
    layers = [busybox_layer([ID]), layer.finish(), upper.finish()]
    write_layout(tmp_path / "layout", layers, ImageConfig(volumes=["/volume"]))
    before = cri.image
    yield cri.pull(registry.push(tmp_path / "layout", "owners"))
    cri.remove_pods()
    cri.images.RemoveImage(pb.RemoveImageRequest(image=pb.ImageSpec(image=cri.image)))
    cri.image = before


def test_it_is_announced(cri: Cri) -> None:
    handler, _ = cri.runtime.Status(pb.StatusRequest()).runtime_handlers
    assert handler.features.user_namespaces and handler.features.recursive_read_only_mounts


def test_the_ids_inside_are_others_outside(user_pod: Pod, sleeper: Sleeper) -> None:
    container = sleeper(run_as_user=pb.Int64Value(value=7), run_as_group=pb.Int64Value(value=8))
    ids = f"0 {FIRST} {COUNT}".split()
    assert container.tell(MAPS).split() == ids * 2
    assert container.tell("id -u; id -g").split() == ["7", "8"]
    status = Path(f"/proc/{host_pid(container)}/status").read_text()
    assert [line.split()[1] for line in status.splitlines() if line.startswith(("Uid", "Gid"))] == [
        str(FIRST + 7),
        str(FIRST + 8),
    ]
    echoed = user_pod.status.linux.namespaces.options.userns_options
    assert echoed == user_namespace()


def test_every_pod_has_its_own(make_pod: PodMaker, user_pod: Pod, sleeper: Sleeper) -> None:
    other_ids = user_namespace(1000, 100_000)
    other = make_pod(linux=sandbox(other_ids)).start("sleep 100", linux=inside(other_ids))
    assert other.tell(MAPS).split() == ["0", "1000", "100000"] * 2
    assert sleeper().tell(MAPS).split() == ["0", str(FIRST), str(COUNT)] * 2


def test_the_hosts_ids(make_pod: PodMaker) -> None:
    ids = pb.UserNamespace(mode=pb.NODE)
    container = make_pod(linux=sandbox(ids)).start("sleep 100", linux=inside(ids))
    assert container.tell("cat /proc/self/uid_map").split() == ["0", "0", str((1 << 32) - 1)]


@pytest.mark.parametrize("folder", ["/plain", "/volume"])
def test_the_files_of_an_image(many_owners: str, sleeper: Sleeper, folder: str) -> None:
    """Seen through its layers, and copied into the volume that it declares."""
    container = sleeper()
    listed = dict(line.split() for line in container.tell(f"cd {folder}; stat -c '%n %u:%g' *").splitlines())
    within = {str(uid): f"{uid}:{uid}" for uid in (0, 33, 1000, COUNT - 1)}
    nobody = {str(uid): "65534:65534" for uid in (COUNT, 4_000_000)}
    assert listed == {**within, **nobody, "new": "7:8"}
    assert container.tell(f"stat -c '%u:%g' {folder} / /etc /bin/busybox").split() == ["33:33"] + ["0:0"] * 3


def test_a_program_that_raises_its_user(many_owners: str, sleeper: Sleeper) -> None:
    container = sleeper(run_as_user=pb.Int64Value(value=1000))
    assert container.tell("id -u; /bin/raise -u").split() == ["1000", "0"]


def test_what_a_container_writes_into_its_root(node: Daemon, sleeper: Sleeper) -> None:
    container = sleeper()
    container.tell("touch /made; mkdir /folder; chown 5:6 /folder; echo x >> /etc/passwd; chmod 4755 /bin/sh")
    upper = node.root / "containers" / container.id / "upper"
    assert owner(upper) == owner(upper / "made") == owner(upper / "etc/passwd") == (FIRST, FIRST)
    assert owner(upper / "folder") == (FIRST + 5, FIRST + 6)
    assert all(owner(path) >= (FIRST, FIRST) for path in upper.rglob("*")), (
        "nothing belongs to the host's root"
    )


def test_what_the_container_was_made_of(sleeper: Sleeper) -> None:
    """Folders for mounts, and /dev with its nodes, belong to the root inside."""
    container = sleeper()
    devices = "/dev /dev/null /dev/pts /dev/pts/ptmx /dev/mqueue /dev/shm"
    files = "/ /etc/hosts /etc/resolv.conf /etc/hostname"
    assert set(container.tell(f"stat -c %u:%g {devices} {files}").split()) == {"0:0"}
    container.tell("echo 127.0.0.9 extra >> /etc/hosts; touch /dev/shm/x /dev/mqueue/y; rm /dev/zero")


def test_working_folder_is_made_for_it(user_pod: Pod) -> None:
    container = user_pod.run("stat -c %u:%g . ..; touch it", working_dir="/not/there", linux=inside())
    assert container.output == "0:0\n0:0" and container.status.exit_code == 0


def test_standard_streams_can_be_opened_again(user_pod: Pod) -> None:
    asked = inside(run_as_user=pb.Int64Value(value=1000))
    container = user_pod.run("echo out > /dev/stdout; echo err > /dev/stderr", linux=asked)
    assert sorted((line.stream, line.text) for line in container.log) == [
        ("stderr", "err"),
        ("stdout", "out"),
    ]
    assert owner(container.status.log_path) == (0, 0)


def test_a_terminal_belongs_to_its_user(user_pod: Pod) -> None:
    asked = inside(run_as_user=pb.Int64Value(value=1000))
    container = user_pod.run("stat -c %u:%g $(tty); echo x > /dev/tty", tty=True, linux=asked)
    assert container.output == "1000:5\nx"


@pytest.mark.parametrize(
    ("users", "words"),
    [
        (pb.UserNamespace(mode=pb.CONTAINER), "userns_options.mode"),
        (pb.UserNamespace(mode=pb.TARGET), "userns_options.mode"),
        (pb.UserNamespace(mode=pb.POD), "userns_options.uids"),
        (pb.UserNamespace(mode=pb.POD, uids=[id_mapping()]), "userns_options.gids"),
        (pb.UserNamespace(mode=pb.POD, uids=[id_mapping()] * 2, gids=[id_mapping()] * 2), "not 2"),
        (pb.UserNamespace(mode=pb.POD, uids=[id_mapping(inside=1)], gids=[id_mapping(inside=1)]), "id 0"),
        (user_namespace(0), "host_id 0"),
        (user_namespace(mode=pb.NODE), "with mode NODE"),
    ],
)
def test_impossible_pods(make_pod: PodMaker, users: pb.UserNamespace, words: str) -> None:
    code, text = refusal(lambda: make_pod(linux=sandbox(users)))
    assert code is INVALID and words in text


@pytest.mark.parametrize("kind", ["network", "pid", "ipc"])
def test_the_hosts_other_namespaces_do_not_go_with_it(make_pod: PodMaker, kind: str) -> None:
    config = sandbox(user_namespace())
    setattr(config.security_context.namespace_options, kind, pb.NODE)
    code, text = refusal(lambda: make_pod(linux=config))
    assert code is INVALID and f"namespace_options.{kind}" in text


def test_impossible_containers(user_pod: Pod, pod: Pod) -> None:
    for made, asked, words in (
        (user_pod, linux(), "NODE, but the pod has POD"),
        (user_pod, inside(user_namespace(5000)), "differ from the pod"),
        (pod, inside(), "POD, but the pod has NODE"),
        (user_pod, inside(run_as_user=pb.Int64Value(value=COUNT)), f"user {COUNT}"),
        (user_pod, inside(supplemental_groups=[COUNT]), f"group {COUNT}"),
        (
            user_pod,
            inside(run_as_user=pb.Int64Value(value=1), run_as_group=pb.Int64Value(value=COUNT)),
            f"group {COUNT}",
        ),
    ):
        code, text = refusal(lambda made=made, asked=asked: made.create("true", linux=asked))  # type: ignore[misc]
        assert code is INVALID and words in text, text

"""What the root of a user namespace cannot do, with every capability that a pod may give it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phantom_cri.api.cri.v1 import api_pb2 as pb
from tests.e2e.lifecycle.client import Container, Pod
from tests.e2e.lifecycle.conftest import PodMaker
from tests.e2e.userns.conftest import FIRST, inside, mapped_mount, sandbox, user_namespace

pytestmark = [pytest.mark.root, pytest.mark.kernel("user_namespaces")]

ALL = pb.Capability(add_capabilities=["ALL"])
UNCONFINED = pb.SecurityProfile(profile_type=pb.SecurityProfile.Unconfined)


@pytest.fixture
def shared_pod(make_pod: PodMaker) -> Pod:
    """Its containers share one pid namespace, where the fragment is process 1."""
    return make_pod(linux=sandbox(user_namespace(), privileged=True, pid=pb.POD))


@pytest.fixture
def mighty(shared_pod: Pod) -> Container:
    """Privileged, and in the fragment's pid namespace."""
    return shared_pod.start("sleep 1000", linux=inside(pid=pb.POD, privileged=True))


MightyWith = Callable[..., Container]


@pytest.fixture
def mighty_with(make_pod: PodMaker) -> MightyWith:
    """The same with mounts, in a pid namespace of its own."""

    def start(*mounts: pb.Mount) -> Container:
        pod = make_pod(linux=sandbox(user_namespace(), privileged=True))
        return pod.start("sleep 1000", linux=inside(privileged=True), mounts=mounts)

    return start


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """A folder of the host's root with what only root may read, and with what all may."""
    tmp_path.chmod(0o755)
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "public").write_text("public\n")
    yield tmp_path
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["public", "secret"]
    for path, mode in ((tmp_path, 0o755), (tmp_path / "secret", 0o600), (tmp_path / "public", 0o644)):
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, 0, 0)
    assert (tmp_path / "public").read_text() == "public\n"


def fails(container: Container, script: str) -> str:
    """The words with which a script is refused."""
    answer = container.exec(script)
    assert answer.exit_code != 0, f"{script}: {answer.stdout.decode()}"
    return answer.stderr.decode()


def test_it_has_all_capabilities_over_the_pod(mighty: Container) -> None:
    """All that this node has, else what follows tests nothing."""
    ours = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff")
    )
    assert mighty.tell("grep CapEff /proc/self/status") == ours


@pytest.mark.parametrize("name", ["TERM", "KILL", "STOP", "HUP", "0"])
def test_the_fragment_cannot_be_signalled(mighty: Container, shared_pod: Pod, name: str) -> None:
    assert "fragment" in mighty.tell("cat /proc/1/comm")
    assert "not permitted" in fails(mighty, f"kill -{name} 1")
    assert shared_pod.status.state == pb.SANDBOX_READY


@pytest.mark.parametrize("entry", ["environ", "mem", "maps", "auxv", "syscall", "stack", "io", "pagemap"])
def test_the_fragment_cannot_be_read(mighty: Container, entry: str) -> None:
    assert "denied" in fails(mighty, f"head -c 1 /proc/1/{entry} > /dev/null") or entry == "stack"


@pytest.mark.parametrize("entry", ["root", "cwd", "exe", "ns/mnt", "ns/user", "fd/3"])
def test_the_fragment_cannot_be_entered(mighty: Container, entry: str) -> None:
    assert "denied" in fails(mighty, f"ls /proc/1/{entry}/ && readlink /proc/1/{entry}")


def test_the_fragments_namespaces_cannot_be_joined(mighty: Container) -> None:
    for kind in ("-m", "-U", "-n"):
        fails(mighty, f"nsenter {kind} -t 1 true")


@pytest.mark.parametrize(
    "change",
    ["renice -n 5 -p 1", "taskset -p 1 1", "echo 500 > /proc/1/oom_score_adj", "echo 1 > /proc/1/sched"],
)
def test_the_fragment_cannot_be_slowed_down(mighty: Container, change: str) -> None:
    fails(mighty, change)


def test_an_exec_that_begins_is_no_way_out(shared_pod: Pod) -> None:
    """What enters the container still has the host's mounts behind it: nobody inside may look into it."""
    script = (
        "while :; do for p in /proc/[0-9]*; do"
        " ls -l $p/exe $p/root $p/cwd $p/fd/; cat $p/environ; done 2>/dev/null; done"
    )
    watcher = shared_pod.start(["sh", "-c", script], linux=inside(pid=pb.POD, privileged=True))
    for _ in range(40):
        watcher.tell("true")
    shared_pod.run("true", linux=inside(pid=pb.POD))
    watcher.stop()
    seen = watcher.output
    assert "exe -> /bin/" in seen and "environ" not in seen, "it sees its own"
    assert not [word for word in ("memfd", "pidfd", "fragment", "/root/", "(deleted)") if word in seen]


def test_files_of_the_host_stay_the_hosts(mighty_with: MightyWith, secret: Path) -> None:
    container = mighty_with(pb.Mount(host_path=str(secret), container_path="/host"))
    assert container.tell("cat /host/public") == "public"
    assert container.tell("stat -c %U /host /host/secret").split() == ["nobody"] * 2
    for script in (
        "cat /host/secret",
        "echo lost > /host/public",
        "chmod 777 /host/secret",
        "chown 0:0 /host/secret",
        "rm -f /host/public || rm /host/secret",
        "touch /host/new",
        "mkdir /host/new",
        "ln /host/secret /host/link",
        "mv /host/public /host/gone",
        "mknod /host/null c 1 3",
        "setfattr -n trusted.x -v y /host/public || mount -o remount,suid /host/public",
    ):
        fails(container, script)


def test_what_is_made_below_a_plain_mount_is_the_pods(mighty_with: MightyWith, tmp_path: Path) -> None:
    """Mount points too, that the runtime makes with the host's privileges."""
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    for folder in (outer, inner):
        folder.mkdir()
    outer.chmod(0o777)
    mounts = [
        pb.Mount(host_path=str(outer), container_path="/outer"),
        pb.Mount(host_path=str(inner), container_path="/outer/a/b"),
        pb.Mount(host_path="/etc/hostname", container_path="/outer/c/file"),
    ]
    container = mighty_with(*mounts)
    container.tell("touch /outer/made; chmod 4755 /outer/made")
    made = [path for path in outer.rglob("*")]
    assert {path.name for path in made} == {"a", "b", "c", "file", "made"}
    for path in made:
        assert (path.stat().st_uid, path.stat().st_gid) == (FIRST, FIRST), path


def test_mounts_hold_against_the_root_inside(user_pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept\n")
    asked = inside(capabilities=ALL, seccomp=UNCONFINED, masked_paths=["/proc/keys", "/etc/group"])
    mounts = [mapped_mount(tmp_path, "/ro", readonly=True)]
    container = user_pod.start("sleep 1000", linux=asked, mounts=mounts)
    assert container.tell("mount -t tmpfs none /home && mount | grep -c '/home type tmpfs'") == "1"
    for script in (
        "mount -o remount,rw,bind /ro",
        "mount -o remount,rw /ro; echo x > /ro/file",
        "umount /proc/keys",
        "umount /etc/group",
        "umount -l /proc",
        "mount -o remount,rw,bind /proc/sys",
        "mount -o remount,rw,bind /sys",
        "umount /etc/hosts",
        "mount -t ext4 /dev/vda /home",
        "mount -t sysfs none /tmp && echo x > /tmp/power/state",
    ):
        fails(container, script)
    assert (tmp_path / "file").read_text() == "kept\n"
    assert container.tell("cat /proc/keys /etc/group | wc -c") == "0"


@pytest.mark.parametrize(
    "script",
    [
        "mknod /tmp/disk b 254 0",
        "mknod /tmp/null c 1 3",
        "echo b > /proc/sysrq-trigger",
        "echo /tmp/x > /proc/sys/kernel/core_pattern",
        "echo 1 > /proc/sys/vm/drop_caches",
        "echo x > /sys/kernel/uevent_helper || echo x > /sys/power/state",
        "cd /sys/fs/cgroup; if [ -d memory ]; then echo 0 > memory/tasks; else echo 0 > cgroup.procs; fi",
        "dmesg -c",
        "hwclock -w",
        "! date -s 2000-01-01 2>&1 | grep 'not permitted'",
        "insmod /dev/null",
        "swapoff -a; losetup /dev/loop0 /bin/busybox",
        "reboot -f",
        "hostname host && cat /proc/sys/kernel/hostname && mount -t proc none /tmp",
    ],
)
def test_the_node_is_out_of_reach(mighty: Container, script: str) -> None:
    fails(mighty, script)


def test_devices_of_the_node_have_their_owners(mighty: Container) -> None:
    """A privileged container has all of them; it may open those that anybody may."""
    closed = [
        name
        for name in os.listdir("/dev")
        if stat.S_ISBLK((node := os.lstat(f"/dev/{name}")).st_mode) and not node.st_mode & 0o006
    ]
    assert closed, "a node without a disk that is its root's alone"
    for name in closed[:3]:
        assert "denied" in fails(mighty, f"head -c 1 /dev/{name}")
        assert "denied" in fails(mighty, f"echo > /dev/{name}")
        fails(mighty, f"chown 0:0 /dev/{name} || chmod 666 /dev/{name}")
    assert mighty.tell("head -c 4 /dev/zero | wc -c") == "4"


def test_an_ordinary_container_is_as_confined_as_any(user_pod: Pod) -> None:
    container = user_pod.start("sleep 100", linux=inside())
    status = dict(line.split(":", 1) for line in container.tell("cat /proc/self/status").splitlines())
    assert status["CapEff"].strip() == status["CapBnd"].strip() == "00000000a80425fb"
    assert status["Seccomp"].strip() == "2"
    for script in (
        "mount -t tmpfs none /home",
        "hostname x",
        "ip link add x type dummy",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
    ):
        fails(container, script)

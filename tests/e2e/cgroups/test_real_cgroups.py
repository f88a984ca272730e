"""On the node's own cgroups, whichever version they are."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from phantom_cri.cgroups import ABSENT, DEFAULT_RULES, Cgroups, LaunchFds, detect, pod_path
from phantom_cri.cgroups.device_filter import DeviceFilters
from phantom_cri.cgroups.v1 import V1Cgroups
from phantom_cri.cgroups.v2 import V2Cgroups
from phantom_cri.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from phantom_cri.model import HugepageLimit, Resources

pytestmark = pytest.mark.root

# Joins the cgroup by the donated fds, as a fragment's child does, says so, then does what the test wants.
_JOIN = "for fd in $JOIN; do echo 0 >&$fd || exit 9; done; echo joined; "


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    cgroups = detect()
    yield cgroups
    cgroups.close()


@pytest.fixture
def pod(cgroups: Cgroups) -> Iterator[str]:
    """A pod's parent; afterwards nothing of it may be left in any hierarchy."""
    parent = f"/phantom-test-{secrets.token_hex(4)}"
    pod = f"{parent}/pod1"
    yield pod
    cgroups.kill(parent)
    cgroups.remove(parent)
    assert [tree.root for tree in cgroups.trees if tree.has(parent[1:], "cgroup.procs")] == []


class Shells:
    """Shells that put themselves into a cgroup by its fds; ended and closed together."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen[str]] = []

    def start(self, cgroups: Cgroups, fds: LaunchFds, path: str, script: str) -> subprocess.Popen[str]:
        """Returns when the shell is known to be in."""
        join = list(fds.procs)
        if fds.clone_into is not None:
            # A shell cannot be cloned into a cgroup; it enters by the folder that the fd stands for.
            join.append(os.open(f"/proc/self/fd/{fds.clone_into}/cgroup.procs", os.O_WRONLY))
        process = subprocess.Popen(
            ["bash", "-c", _JOIN + script],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=join,
            env={"PATH": os.environ["PATH"], "JOIN": " ".join(map(str, join))},
        )
        self.running.append(process)
        if fds.clone_into is not None:
            os.close(join[-1])
        assert process.stdout is not None
        assert process.stdout.readline() == "joined\n"
        assert process.pid in cgroups.pids(path)
        return process

    def end(self) -> None:
        for process in self.running:
            process.kill()
            process.communicate(timeout=10)


@pytest.fixture
def shells() -> Iterator[Shells]:
    shells = Shells()
    yield shells
    shells.end()


def folders(cgroups: Cgroups, path: str) -> list[str]:
    return [tree.root for tree in cgroups.trees if tree.has(path.strip("/"), "cgroup.procs")]


def test_refused_value_leaves_no_folder(cgroups: Cgroups, pod: str) -> None:
    with pytest.raises(InvalidArgument, match=r"cpu_quota '5"):
        cgroups.create(pod_path(pod, "c1"), Resources(pids_limit=9, cpu_quota=5, cpu_period=100_000), None)
    with pytest.raises(InvalidArgument, match="cpuset_cpus 'nonsense'"):
        cgroups.create(pod_path(pod, "c1"), Resources(cpuset_cpus="nonsense"), None)
    assert folders(cgroups, pod) == []


def test_life(cgroups: Cgroups, pod: str, shells: Shells) -> None:
    path = pod_path(pod, "c1")
    with pytest.raises(NotFound):
        cgroups.launch_fds(path)
    resources = Resources(
        cpu_shares=512,
        cpu_quota=50_000,
        cpu_period=100_000,
        memory_limit=64 << 20,
        pids_limit=100,
        hugepage_limits=(HugepageLimit("2MB", 0),),
    )
    cgroups.create(path, resources, DEFAULT_RULES)
    assert len(folders(cgroups, path)) == len(cgroups.trees)
    with pytest.raises(AlreadyExists):
        cgroups.create(path, resources, DEFAULT_RULES)
    with cgroups.launch_fds(path) as fds:
        process = shells.start(cgroups, fds, path, "exec sleep 60")
        for line in Path(f"/proc/{process.pid}/cgroup").read_text().splitlines():
            assert line.endswith(path)
        assert b"oom_kill 0\n" in os.read(fds.oom, 4096)
    assert cgroups.usage(path).tasks.tasks >= 1
    with pytest.raises(FailedPrecondition, match=str(process.pid)):
        cgroups.remove(path, timeout_s=0.05)
    cgroups.kill(path)
    assert process.wait(10) == -9
    cgroups.remove(path)
    cgroups.remove(path)
    assert folders(cgroups, path) == []


def test_devices_are_held_back(cgroups: Cgroups, pod: str, shells: Shells, tmp_path: Path) -> None:
    path = pod_path(pod, "c1")
    node = tmp_path / "kmsg"
    cgroups.create(path, Resources(), DEFAULT_RULES)
    with cgroups.launch_fds(path) as fds:
        script = f"mknod {node} c 1 11 && echo made; head -c1 /dev/zero >/dev/null && echo zero; cat {node}"
        process = shells.start(cgroups, fds, path, script)
        out, _ = process.communicate(timeout=20)
    assert out.startswith("made\nzero\n")
    assert "Operation not permitted" in out


def test_exec_child_dies_alone_and_whole(cgroups: Cgroups, pod: str, shells: Shells) -> None:
    path = pod_path(pod, "c1")
    cgroups.create(path, Resources(), None)
    with cgroups.launch_fds(path) as fds, cgroups.exec_child(path, "e1") as exec_fds:
        main = shells.start(cgroups, fds, path, "exec sleep 60")
        # The grandchild leaves its session: only the cgroup still knows where it belongs.
        exec_process = shells.start(cgroups, exec_fds, path, "setsid sleep 61 & exec sleep 62")
        cgroups.kill(f"{path}/exec-e1")
        assert exec_process.wait(10) == -9
        cgroups.remove_exec_child(path, "e1")
        assert cgroups.pids(path) == {main.pid}
        cgroups.kill(path)
        assert main.wait(10) == -9


def test_update_up_and_down_and_back_after_a_failure(cgroups: Cgroups, pod: str) -> None:
    path = pod_path(pod, "c1")
    cgroups.create(path, Resources(memory_limit=64 << 20, cpu_quota=50_000, cpu_period=100_000), None)
    for megabytes in (128, 32, 256):
        cgroups.update(path, Resources(memory_limit=megabytes << 20))
        assert memory_limit(cgroups, path) == megabytes << 20
    with pytest.raises(InvalidArgument, match="cpu_quota '7"):
        cgroups.update(path, Resources(memory_limit=64 << 20, cpu_quota=7))
    assert memory_limit(cgroups, path) == 256 << 20


def memory_limit(cgroups: Cgroups, path: str) -> int:
    file = "memory.max" if cgroups.version == "v2" else "memory.limit_in_bytes"
    (tree,) = [tree for tree in cgroups.trees if "memory" in tree.controllers]
    return int(tree.read(path.strip("/"), file))


def test_out_of_memory_is_counted(cgroups: Cgroups, pod: str, shells: Shells) -> None:
    path = pod_path(pod, "c1")
    cgroups.create(path, Resources(memory_limit=16 << 20), None)
    with cgroups.launch_fds(path) as fds:
        assert fds.oom != ABSENT
        script = "head -c 100000000 /dev/zero | tail -c 100000000 >/dev/null; echo ${PIPESTATUS[1]}"
        process = shells.start(cgroups, fds, path, script)
        out, _ = process.communicate(timeout=60)
        # On a slow machine the shell may follow, while the memory of the first one is still being given back.
        assert out.endswith("137\n") or process.returncode == -signal.SIGKILL
        assert re.search(rb"oom_kill [1-9]", os.read(fds.oom, 4096))


def test_many_cycles_leave_nothing(cgroups: Cgroups, pod: str) -> None:
    cgroups.create(pod, Resources(), DEFAULT_RULES)  # v2 keeps the program of a set of rules
    fds_before = len(os.listdir("/proc/self/fd"))
    counts = [len(tree.children(".")) for tree in cgroups.trees]
    for number in range(50):
        path = pod_path(pod, f"c{number}")
        cgroups.create(path, Resources(cpu_shares=2, memory_limit=8 << 20), DEFAULT_RULES)
        cgroups.launch_fds(path).close()
        cgroups.remove(path)
    assert len(os.listdir("/proc/self/fd")) == fds_before
    assert [len(tree.children(".")) for tree in cgroups.trees] == counts
    assert all(tree.children(pod[1:]) == [] for tree in cgroups.trees)


def test_without_a_unified_tree_kill_freezes_first(pod: str, shells: Shells) -> None:
    """Pure v1, on a hybrid node: the same hierarchies, with the v2 one left out."""
    found = detect()
    if found.version != "hybrid":
        pytest.skip(f"cgroups here are {found.version}, not hybrid")
    pure = V1Cgroups([tree for tree in found.trees if not tree.has(".", "cgroup.controllers")], None)
    path = pod_path(pod, "c1")
    pure.create(path, Resources(), DEFAULT_RULES)
    with pure.launch_fds(path) as fds, pure.exec_child(path, "e1") as exec_fds:
        assert fds.clone_into is None
        main = shells.start(pure, fds, path, "exec sleep 60")
        storm = shells.start(pure, exec_fds, path, "while :; do setsid sleep 61 & sleep 0.01; done")
        assert str(main.pid).encode() in os.read(fds.kill, 4096)
        pure.kill(f"{path}/exec-e1")
        assert storm.wait(10) == -9
        pure.remove_exec_child(path, "e1")
        assert pure.pids(path) == {main.pid}
        pure.kill(path)
        assert main.wait(10) == -9
    pure.remove(path)
    found.close()


async def test_async_remove_waits_for_the_last_process(cgroups: Cgroups, pod: str, shells: Shells) -> None:
    path = pod_path(pod, "c1")
    cgroups.create(path, Resources(), None)
    with cgroups.launch_fds(path) as fds:
        process = shells.start(cgroups, fds, path, "exec sleep 60")
    await cgroups.kill_async(path)
    await cgroups.remove_async(path)
    assert process.wait(10) == -9
    assert folders(cgroups, path) == []


def test_v2_device_program_in_the_kernel(cgroups: Cgroups, pod: str, tmp_path: Path) -> None:
    """The program itself, on any node with a v2 tree: loaded, attached, and asked by open(2)."""
    unified = [tree for tree in cgroups.trees if tree.has(".", "cgroup.controllers")]
    if not unified:
        pytest.skip("no cgroup v2 tree is mounted here")
    name = pod_path(pod, "c1")[1:]
    unified[0].make(name, [])
    folder = unified[0].open_directory(name)
    filters = DeviceFilters()
    filters.apply(DEFAULT_RULES, folder)
    os.close(folder)
    filters.close()
    script = f"echo $$ >{unified[0].root}/{name}/cgroup.procs; mknod {tmp_path}/k c 1 11; cat {tmp_path}/k"
    done = subprocess.run(["sh", "-c", script + "; cat /dev/null && echo ok"], capture_output=True, text=True)
    assert done.stdout == "ok\n"
    assert "Operation not permitted" in done.stderr


@pytest.fixture
def unified(cgroups: Cgroups) -> Iterator[V2Cgroups]:
    """The node's v2 tree by itself, with whatever controllers it has; its root is left as it was."""
    roots = [tree.root for tree in cgroups.trees if tree.has(".", "cgroup.controllers")]
    if not roots:
        pytest.skip("no cgroup v2 tree is mounted here")
    found = detect(Path(roots[0]))
    assert isinstance(found, V2Cgroups)
    (tree,) = found.trees
    before = set(tree.read(".", "cgroup.subtree_control").split())
    yield found
    for left in tree.children("."):
        if "phantom-test-" in left:
            found.kill(left.removeprefix("./"))
            found.remove(left.removeprefix("./"))
    for controller in set(tree.read(".", "cgroup.subtree_control").split()) - before:
        tree.write(".", "cgroup.subtree_control", f"-{controller}")
    found.close()


def test_v2_for_real(unified: V2Cgroups, shells: Shells, tmp_path: Path) -> None:
    parent = f"/phantom-test-{secrets.token_hex(4)}"
    path = pod_path(f"{parent}/pod1", "c1")
    (tree,) = unified.trees
    limits = Resources(hugepage_limits=(HugepageLimit("2MB", 4 << 20),))
    unified.create(path, limits, DEFAULT_RULES)
    if "hugetlb" in unified.controllers:
        assert tree.read(path[1:], "hugetlb.2MB.max").strip() == str(4 << 20)
        with pytest.raises(InvalidArgument, match=r"unified\['hugetlb.2MB.max'\] 'much'"):
            unified.update(path, Resources(unified={"hugetlb.2MB.max": "much"}))
    with unified.launch_fds(path) as fds, unified.exec_child(path, "e1") as exec_fds:
        assert fds.procs == ()
        script = f"mknod {tmp_path}/k c 1 11; cat {tmp_path}/k; exec sleep 60"
        main = shells.start(unified, fds, path, script)
        assert main.stdout is not None
        assert "Operation not permitted" in main.stdout.readline()
        shells.start(unified, exec_fds, path, "setsid sleep 61 & exec sleep 62")
        os.write(exec_fds.kill, b"1")
        unified.kill(f"{path}/exec-e1")
        unified.remove_exec_child(path, "e1")
        assert main.pid in unified.pids(path)
    unified.kill(parent)
    unified.remove(parent)
    assert not tree.has(parent[1:], "cgroup.procs")

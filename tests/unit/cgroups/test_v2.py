from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from phantom_cri.cgroups import Cgroups, detect
from phantom_cri.cgroups.v2 import V2Cgroups
from phantom_cri.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from phantom_cri.model import HugepageLimit, Resources
from tests.unit.cgroups.cgroup2_folder import Cgroup2Folder

CONTROLLERS = frozenset({"cpu", "cpuset", "memory", "pids"})
PATH = "/kubepods/burstable/pod1/c1"
NAME = PATH[1:]


@pytest.fixture
def folder(tmp_path: Path) -> Cgroup2Folder:
    return Cgroup2Folder(tmp_path / "cgroup", CONTROLLERS)


@pytest.fixture
def cgroups(folder: Cgroup2Folder) -> Iterator[Cgroups]:
    cgroups = V2Cgroups(folder)
    yield cgroups
    cgroups.close()


def snapshot(root: str) -> dict[str, str]:
    return {str(path): path.read_text() for path in Path(root).rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "resources, field",
    [
        (Resources(unified={"cgroup.procs": "1"}), "cgroup.procs"),
        (Resources(unified={"../memory.max": "1"}), "../memory.max"),
        (Resources(unified={"memory.max/x": "1"}), "memory.max/x"),
        (Resources(unified={"rdma.max": "1"}), "rdma.max"),
        (Resources(memory_limit=-2), "memory_limit_in_bytes -2"),
        (Resources(memory_limit=100, memory_swap_limit=50), "memory_swap_limit_in_bytes 50"),
        (Resources(hugepage_limits=(HugepageLimit("../2MB", 1),)), "../2MB"),
    ],
)
def test_a_wrong_value_is_named_and_makes_nothing(
    cgroups: Cgroups, folder: Cgroup2Folder, resources: Resources, field: str
) -> None:
    before = snapshot(folder.root)
    with pytest.raises(InvalidArgument, match=field.replace(".", r"\.")):
        cgroups.create(PATH, resources, None)
    assert snapshot(folder.root) == before


def test_a_value_the_kernel_refuses_is_named_and_leaves_nothing(
    cgroups: Cgroups, folder: Cgroup2Folder
) -> None:
    folder.refused.add(("cpu.max", "5 100000"))
    with pytest.raises(InvalidArgument, match=r"linux\.resources\.cpu_quota '5 100000'.*cpu\.max.*EINVAL"):
        cgroups.create(PATH, Resources(memory_limit=1 << 20, cpu_quota=5, cpu_period=100_000), None)
    assert folder.children(".") == []


def test_parents_that_were_there_stay_after_a_failure(cgroups: Cgroups, folder: Cgroup2Folder) -> None:
    cgroups.create("/kubepods/burstable", Resources(), None)
    folder.refused.add(("pids.max", "7"))
    with pytest.raises(InvalidArgument, match="pids_limit"):
        cgroups.create(PATH, Resources(pids_limit=7), None)
    assert folder.children("kubepods/burstable") == []


def test_create_twice(cgroups: Cgroups, folder: Cgroup2Folder) -> None:
    cgroups.create(PATH, Resources(), None)
    with pytest.raises(AlreadyExists, match=PATH):
        cgroups.create(PATH, Resources(), None)
    assert folder.has(NAME, "cgroup.procs")


def test_a_parent_with_processes_cannot_hand_controllers_down(
    cgroups: Cgroups, folder: Cgroup2Folder
) -> None:
    folder.mkdir("kubepods")
    Path(folder.root, "kubepods/cgroup.procs").write_text("12\n")
    with pytest.raises(FailedPrecondition, match="/kubepods"):
        cgroups.create("/kubepods/c1", Resources(), None)
    assert folder.children("kubepods") == []


def test_create_enables_controllers_down_the_parents_and_writes_limits(
    cgroups: Cgroups, folder: Cgroup2Folder
) -> None:
    resources = Resources(
        cpu_shares=512,
        cpu_quota=50_000,
        cpu_period=100_000,
        memory_limit=1 << 20,
        memory_swap_limit=3 << 20,
        cpuset_cpus="0-1",
        pids_limit=100,
        hugepage_limits=(HugepageLimit("2MB", 0),),
        unified={"memory.high": "900000"},
    )
    cgroups.create(PATH, resources, None)
    assert set(folder.read("kubepods/burstable/pod1", "cgroup.subtree_control").split()) == CONTROLLERS
    values = {
        "cpu.weight": "59",
        "cpu.max": "50000 100000",
        "memory.max": str(1 << 20),
        "memory.swap.max": str(2 << 20),
        "memory.high": "900000",
        "cpuset.cpus": "0-1",
        "pids.max": "100",
    }
    assert {file: folder.read(NAME, file) for file in values} == values


def test_a_limit_below_what_stays_in_use_is_refused_and_kills_nobody(
    cgroups: Cgroups, folder: Cgroup2Folder
) -> None:
    cgroups.create(PATH, Resources(memory_limit=1 << 20), None)
    folder.writes.clear()
    with pytest.raises(FailedPrecondition, match=r"memory_limit_in_bytes 4000: .* uses 5000 bytes"):
        cgroups.update(PATH, Resources(memory_limit=4000))
    assert folder.read(NAME, "memory.max") == str(1 << 20)
    assert folder.writes == [(NAME, "memory.high", "4000"), (NAME, "memory.high", "max")]


@pytest.mark.parametrize(
    "resources, named",
    [
        (Resources(cpu_quota=5), "cpu_quota 5"),
        (Resources(cpuset_cpus="x"), "cpuset_cpus 'x'"),
        (Resources(unified={"memory.high": "much"}), "memory.high"),
    ],
)
def test_a_check_refuses_without_a_cgroup(
    cgroups: Cgroups, folder: Cgroup2Folder, resources: Resources, named: str
) -> None:
    with pytest.raises(InvalidArgument, match=named):
        cgroups.check(resources)
    assert folder.writes == []


def test_a_check_names_the_controller_that_is_missing(tmp_path: Path) -> None:
    few = V2Cgroups(Cgroup2Folder(tmp_path / "few", frozenset({"cpu"})))
    few.check(Resources(hugepage_limits=(HugepageLimit("2MB", 0),), cpu_shares=2))
    with pytest.raises(FailedPrecondition, match=r"memory_limit_in_bytes '5'.*no 'memory' controller"):
        few.check(Resources(memory_limit=5))
    few.close()


def test_defaults_of_the_kernel_are_not_written(cgroups: Cgroups, folder: Cgroup2Folder) -> None:
    cgroups.create(PATH, Resources(cpu_shares=1024, cpu_period=100_000, cpu_quota=-1), None)
    assert {file for _, file, _ in folder.writes} == {"cgroup.subtree_control"}


def test_a_memory_limit_alone_means_no_swap(cgroups: Cgroups, folder: Cgroup2Folder) -> None:
    cgroups.create(PATH, Resources(memory_limit=1 << 20), None)
    assert folder.read(NAME, "memory.swap.max") == "0"


def test_update_is_all_or_nothing(cgroups: Cgroups, folder: Cgroup2Folder) -> None:
    cgroups.create(PATH, Resources(cpu_shares=512, memory_limit=1 << 20), None)
    before = snapshot(folder.root)
    folder.refused.add(("pids.max", "5"))
    with pytest.raises(InvalidArgument, match="pids_limit '5'"):
        cgroups.update(PATH, Resources(cpu_shares=1024, memory_limit=2 << 20, pids_limit=5))
    assert snapshot(folder.root) == before


def test_update_writes_only_what_is_set(cgroups: Cgroups, folder: Cgroup2Folder) -> None:
    cgroups.create(PATH, Resources(cpu_quota=50_000, cpu_period=100_000), None)
    folder.writes.clear()
    cgroups.update(PATH, Resources(cpu_period=20_000))
    assert folder.writes == [(NAME, "cpu.max", "50000 20000")]
    cgroups.update(PATH, Resources(cpu_quota=-1, cpu_shares=1024))
    assert folder.writes[1:] == [(NAME, "cpu.weight", "100"), (NAME, "cpu.max", "max")]


def test_update_of_a_missing_cgroup(cgroups: Cgroups) -> None:
    with pytest.raises(NotFound, match=PATH):
        cgroups.update(PATH, Resources(cpu_shares=5))


def test_launch_fds(cgroups: Cgroups) -> None:
    cgroups.create(PATH, Resources(), None)
    with cgroups.launch_fds(PATH) as fds:
        assert fds.procs == ()
        assert fds.clone_into is not None
        assert os.path.samestat(os.fstat(fds.clone_into), os.stat(f"/proc/self/fd/{fds.clone_into}"))
        assert os.write(fds.kill, b"1") == 1
        assert b"\noom_kill 0\n" in os.read(fds.oom, 4096)
        assert not any(os.get_inheritable(fd) for fd in (fds.clone_into, fds.kill, fds.oom))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fds.kill)


def test_launch_fds_of_a_missing_cgroup_leaves_no_fd(cgroups: Cgroups) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(NotFound, match=PATH):
        cgroups.launch_fds(PATH)
    assert os.listdir("/proc/self/fd") == before


def test_exec_child_lives_below_and_goes(cgroups: Cgroups, folder: Cgroup2Folder) -> None:
    with pytest.raises(NotFound, match=PATH):
        cgroups.exec_child(PATH, "e1")
    cgroups.create(PATH, Resources(), None)
    with pytest.raises(InvalidArgument, match="exec id"):
        cgroups.exec_child(PATH, "../e1")
    cgroups.exec_child(PATH, "e1").close()
    assert folder.children(NAME) == [f"{NAME}/exec-e1"]
    with pytest.raises(AlreadyExists):
        cgroups.exec_child(PATH, "e1")
    cgroups.remove_exec_child(PATH, "e1")
    cgroups.remove_exec_child(PATH, "e1")
    assert folder.children(NAME) == []


def test_remove_takes_children_along_and_is_idempotent(cgroups: Cgroups, folder: Cgroup2Folder) -> None:
    cgroups.create(f"{PATH}/made/inside", Resources(), None)
    cgroups.exec_child(PATH, "e1").close()
    cgroups.remove(PATH)
    cgroups.remove(PATH)
    assert folder.children("kubepods/burstable/pod1") == []


def test_remove_names_who_is_still_there(cgroups: Cgroups, folder: Cgroup2Folder) -> None:
    cgroups.create(PATH, Resources(), None)
    Path(folder.root, NAME, "cgroup.procs").write_text(f"{os.getpid()}\n")
    with pytest.raises(FailedPrecondition, match=str(os.getpid())):
        cgroups.remove(PATH, timeout_s=0.01)


def test_usage(cgroups: Cgroups) -> None:
    with pytest.raises(NotFound, match=PATH):
        cgroups.usage(PATH)
    cgroups.create(PATH, Resources(), None)
    usage = cgroups.usage(PATH)
    assert (usage.cpu.usage_ns, usage.cpu.user_ns, usage.cpu.system_ns) == (5000, 3000, 2000)
    assert usage.memory is not None
    assert (usage.memory.usage, usage.memory.working_set, usage.memory.rss) == (5000, 3500, 1000)
    assert usage.tasks.tasks == 3


def test_detect_by_shape(folder: Cgroup2Folder, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="does not exist"):
        detect(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FailedPrecondition, match="no controller"):
        detect(tmp_path / "empty")
    # A plain folder makes no cgroup.kill appear in what is made in it, as a kernel before 5.14.
    with pytest.raises(FailedPrecondition, match=r"cgroup\.kill"):
        detect(Path(folder.root))
    assert not [child for child in folder.children(".") if "probe" in child]

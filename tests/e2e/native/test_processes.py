"""Pid namespaces, orphans, execs, and the ways everything ends."""

from __future__ import annotations

import errno
import os
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.native import raw
from tests.e2e.native.bed import Bed, children_of, fds_of, is_gone, start
from tests.e2e.native.raw import Fragment, Plan, Refused, eventually

pytestmark = pytest.mark.root

V1, V2 = Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup/unified")
V2_ONLY = Path("/sys/fs/cgroup")
HOST_PID = raw.NEWNS | raw.NEWUTS | raw.NEWIPC | raw.NEWNET


@dataclass(frozen=True)
class Group:
    path: Path
    version: int

    def pids(self) -> list[int]:
        return [int(pid) for pid in (self.path / "cgroup.procs").read_text().split()]

    def use(self, bed: Bed, plan: Plan) -> Plan:
        """Puts the plan's process into the cgroup, and gives the fragment what it kills it by."""
        if self.version == 2:
            plan.cgroup_slot = plan.donate(bed.open(self.path, os.O_RDONLY | os.O_DIRECTORY))
            plan.kill_slot = plan.donate(bed.open(self.path / "cgroup.kill", os.O_WRONLY))
            return plan
        slot = plan.donate(bed.open(self.path / "cgroup.procs", os.O_WRONLY))
        plan.ops.insert(0, ("CGROUP_PROCS", slot))
        plan.kill_slot = plan.donate(bed.open(self.path / "cgroup.procs", os.O_RDONLY))
        return plan


@pytest.fixture(params=[1, 2])
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    root = V1 if request.param == 1 else V2_ONLY if (V2_ONLY / "cgroup.procs").exists() else V2
    if not (root / "cgroup.procs").exists():
        pytest.skip(f"kernel: no cgroup v{request.param} at {root}")
    path = root / f"phantom-test-{uuid.uuid4().hex[:8]}"
    path.mkdir()
    group = Group(path, request.param)
    yield group
    for pid in group.pids():
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not group.pids())
    path.rmdir()


def test_own_pid_namespace(bed: Bed, fragment: Fragment) -> None:
    bed.run(fragment, bed.shell("echo $$"))
    assert bed.output() == "1\n"


def test_shared_pid_namespace_shows_the_fragment_as_init(bed: Bed, fragment: Fragment) -> None:
    bed.run(fragment, bed.shell("echo $$; cat /proc/1/comm", clone_flags=0))
    pid, comm = bed.output().split()
    assert int(pid) > 1
    assert comm == "fragment"


def test_host_pid_namespace(bed: Bed) -> None:
    fragment = bed.fragment(HOST_PID)
    pid = start(fragment, "c", bed.shell("echo $$; exec sleep 1000", clone_flags=0))
    eventually(lambda: bed.log_path.stat().st_size > 0)
    assert bed.output() == f"{pid}\n"
    assert fragment.client.ask(raw.GET, id="c").value2 == pid


@pytest.mark.parametrize("flags", [raw.OWN, HOST_PID])
def test_orphans_are_reaped(bed: Bed, flags: int) -> None:
    fragment = bed.fragment(flags)
    script = "for i in 1 2 3 4 5 6 7 8; do (setsid sleep 0.05 & ) ; done; exec sleep 1000"
    pid = start(fragment, "c", bed.shell(script, clone_flags=0))
    eventually(lambda: len(children_of(fragment.pid)) > 1)
    eventually(lambda: children_of(fragment.pid) == [pid])


def test_orphans_in_the_containers_own_namespace_end_with_it(bed: Bed, fragment: Fragment) -> None:
    pid = start(fragment, "c", bed.shell("setsid sleep 1000 & read x < /dev/gate"))
    eventually(lambda: len(children_of(pid)) == 1)
    (orphan,) = children_of(pid)
    fragment.client.ask(raw.SIGNAL, id="c", value=9)
    fragment.client.exited("c")
    assert is_gone(orphan)()


@pytest.mark.parametrize("flags", [raw.OWN, HOST_PID])
@pytest.mark.parametrize("clone_flags", [0, raw.NEWPID])
def test_a_killed_fragment_takes_all_with_it(bed: Bed, flags: int, clone_flags: int) -> None:
    fragment = bed.fragment(flags)
    pids = [
        start(fragment, f"c{i}", bed.container(["/bin/sleep", "1000"], clone_flags=clone_flags)) for i in "12"
    ]
    executed = start(
        fragment, "e", bed.exec("c1", ["/bin/sleep", "1000"], own_pid_namespace=bool(clone_flags))
    )
    fragment.kill()
    assert fragment.wait() == -signal.SIGKILL
    for pid in [*pids, executed]:
        eventually(is_gone(pid))


def test_exec_in_the_containers_namespaces(bed: Bed, fragment: Fragment) -> None:
    tmpfs: list[raw.Op] = [
        ("NEW_FS", 110, "tmpfs", ["size=64k"], 0),
        ("ATTACH", 110, "/mark", 0, 0, raw.ATTACH_CREATE),
        ("MKDIR", "/mark/here", 0o755, 0, 0),
    ]
    start(fragment, "c", bed.container(["/bin/sleep", "1000"], before_pivot=tmpfs))
    ended = bed.run(fragment, bed.exec("c", ["/bin/sh", "-c", "ls /mark; cat /proc/1/cmdline; exit 11"]), "e")
    assert (ended.exit.code, ended.flags) == (11, raw.EXEC)
    assert bed.output() == "here\n/bin/sleep\x001000\x00"
    assert set(fragment.client.list()) == {"c"}
    assert not (fragment.directory / "exits").exists()
    # The fragment's next child is born in its own pid namespace again.
    assert bed.run(fragment, bed.shell("exit 0", clone_flags=0), "d").exit.code == 0


def test_an_exec_is_kept_until_it_is_forgotten(bed: Bed, fragment: Fragment) -> None:
    """With its exit, for whoever comes later; it has no record on disk, and its id is taken until then."""
    start(fragment, "c", bed.container(["/bin/sleep", "1000"]))
    kept = bed.exec("c", ["/bin/sh", "-c", "exit 5"])
    kept.flags |= raw.KEEP
    start(fragment, "c/kept", kept)
    start(fragment, "c/not", bed.exec("c", ["/bin/true"]))
    for id, code in (("c/kept", 5), ("c/not", 0)):
        assert fragment.client.exited(id).exit.code == code
    late = fragment.connect()
    found = late.list()
    assert found.keys() == {"c", "c/kept"}
    entry = late.ask(raw.GET, id="c/kept")
    assert (entry.value, entry.flags, entry.fds, entry.exit.code) == (raw.ENDED, raw.EXEC, (), 5)
    assert 0 < entry.exit.started_at <= entry.exit.finished_at
    assert not (fragment.directory / "exits").exists()
    with pytest.raises(Refused) as refused:
        start(fragment, "c/kept", bed.exec("c", ["/bin/true"]))
    assert refused.value.error == errno.EEXIST
    for _ in range(2):
        fragment.client.ask(raw.FORGET, id="c/kept")
    assert fragment.client.list().keys() == {"c"}
    start(fragment, "c/kept", bed.exec("c", ["/bin/true"]))


def test_a_kept_exec_leaves_no_fd_and_no_obstacle(bed: Bed, fragment: Fragment) -> None:
    start(fragment, "c", bed.container(["/bin/sleep", "1000"]))
    fds = fds_of(fragment.pid)
    for turn in range(20):
        plan = bed.exec("c", ["/bin/true"])
        plan.flags |= raw.KEEP
        start(fragment, f"c/{turn}", plan)
        fragment.client.exited(f"c/{turn}")
    eventually(lambda: fds_of(fragment.pid) == fds)
    fragment.client.ask(raw.SHUTDOWN)
    assert fragment.wait() == 0


def test_execs_end_with_their_container(bed: Bed, fragment: Fragment) -> None:
    start(fragment, "c", bed.container(["/bin/sleep", "1000"]))
    start(fragment, "e", bed.exec("c", ["/bin/sleep", "1000"]))
    fragment.client.ask(raw.SIGNAL, id="c", value=9)
    assert fragment.client.exited("e").exit.signal == 9
    assert fragment.client.exited("c").exit.signal == 9


def test_exec_in_an_ended_container_is_refused(bed: Bed, fragment: Fragment) -> None:
    start(fragment, "c", bed.container(["/bin/true"]))
    fragment.client.exited("c")
    with pytest.raises(Refused) as refused:
        start(fragment, "e", bed.exec("c", ["/bin/true"]))
    assert (refused.value.error, refused.value.stage) == (errno.ESRCH, raw.STAGE_CLONE)
    with pytest.raises(Refused) as refused:
        start(fragment, "e", bed.exec("c", ["/bin/true"], own_pid_namespace=False))
    assert (refused.value.error, refused.value.op) == (errno.ESRCH, 0)


def test_the_process_is_in_its_cgroup(bed: Bed, fragment: Fragment, group: Group) -> None:
    pid = start(fragment, "c", group.use(bed, bed.container(["/bin/sleep", "1000"])))
    assert group.pids() == [pid]


@pytest.mark.parametrize(("flags", "left"), [(raw.KILL_REST, 0), (0, 5)])
def test_kill_rest_ends_what_the_first_process_left(
    bed: Bed, fragment: Fragment, group: Group, flags: int, left: int
) -> None:
    script = "for i in 1 2 3 4 5; do setsid sleep 1000 >/dev/null 2>&1 & done; read x; exit 13"
    plan = group.use(bed, bed.shell(script, clone_flags=0))
    plan.flags |= flags | raw.STDIN
    message = fragment.client.start("c", plan)
    eventually(lambda: len(group.pids()) == 6)
    for fd in message.fds:
        os.close(fd)
    fragment.client.ask(raw.CLOSE_STDIN, id="c")
    assert fragment.client.exited("c").exit.code == 13
    eventually(lambda: len(group.pids()) == left)


def test_signal_all(bed: Bed, fragment: Fragment, group: Group) -> None:
    script = "for i in 1 2 3 4 5; do setsid sleep 1000 & done; wait; exit 0"
    start(fragment, "c", group.use(bed, bed.shell(script, clone_flags=0)))
    eventually(lambda: len(group.pids()) == 6)
    fragment.client.ask(raw.SIGNAL, id="c", value=signal.SIGKILL, flags=raw.ALL)
    assert fragment.client.exited("c").exit.signal == 9
    eventually(lambda: not group.pids())


def test_signal_all_with_another_signal(bed: Bed, fragment: Fragment, group: Group) -> None:
    start(fragment, "c", group.use(bed, bed.shell("sleep 1000 & wait; exit 0", clone_flags=0)))
    eventually(lambda: len(group.pids()) == 2)
    if group.version == 2:  # cgroup.kill knows SIGKILL only
        with pytest.raises(Refused) as refused:
            fragment.client.ask(raw.SIGNAL, id="c", value=signal.SIGTERM, flags=raw.ALL)
        assert refused.value.error == errno.EOPNOTSUPP
    else:
        fragment.client.ask(raw.SIGNAL, id="c", value=signal.SIGTERM, flags=raw.ALL)
        assert fragment.client.exited("c").exit.signal == signal.SIGTERM


def test_signals_to_nobody(bed: Bed, fragment: Fragment) -> None:
    with pytest.raises(Refused) as refused:
        fragment.client.ask(raw.SIGNAL, id="c", value=15)
    assert refused.value.error == errno.ENOENT
    start(fragment, "c", bed.container(["/bin/true"]))
    fragment.client.exited("c")
    for signal_, error in [(15, errno.ESRCH), (65, errno.EINVAL), (-1, errno.EINVAL)]:
        with pytest.raises(Refused) as refused:
            fragment.client.ask(raw.SIGNAL, id="c", value=signal_)
        assert refused.value.error == error


@pytest.mark.parametrize("flags", [raw.OWN, HOST_PID])
def test_shutdown_ends_everything_and_tells_the_ends(bed: Bed, flags: int) -> None:
    fragment = bed.fragment(flags)
    pids = [start(fragment, f"c{i}", bed.container(["/bin/sleep", "1000"], clone_flags=0)) for i in range(3)]
    fragment.client.ask(raw.SHUTDOWN)
    assert fragment.wait() == 0
    assert sorted(event.id for event in fragment.client.events) == ["c0", "c1", "c2"]
    assert sorted(os.listdir(fragment.directory / "exits")) == ["c0", "c1", "c2"]
    assert all(is_gone(pid)() for pid in pids)


def test_shutdown_in_the_hosts_pid_namespace_empties_the_cgroup(bed: Bed, group: Group) -> None:
    fragment = bed.fragment(HOST_PID)
    start(fragment, "c", group.use(bed, bed.shell("setsid sleep 1000 & sleep 1000", clone_flags=0)))
    eventually(lambda: len(group.pids()) == 2)
    fragment.client.ask(raw.SHUTDOWN)
    assert fragment.wait() == 0
    eventually(lambda: not group.pids())


def test_sigterm_from_outside_is_a_shutdown(bed: Bed, fragment: Fragment) -> None:
    pid = start(fragment, "c", bed.container(["/bin/sleep", "1000"]))
    os.kill(fragment.pid, signal.SIGTERM)
    assert fragment.wait() == 0
    assert is_gone(pid)()


def test_sigterm_from_a_container_is_not(bed: Bed, fragment: Fragment) -> None:
    """Root in a shared pid namespace can signal its init, but the fragment obeys the host only."""
    script = "for s in TERM INT HUP QUIT KILL STOP SEGV CHLD PIPE; do kill -$s 1; done; echo $?"
    bed.run(fragment, bed.shell(script, clone_flags=0))
    assert fragment.client.hello().phase == raw.WARM
    assert bed.run(fragment, bed.shell("exit 3")).exit.code == 3


def test_a_container_cannot_look_into_the_fragment(bed: Bed, fragment: Fragment) -> None:
    capabilities = ~(1 << 19) & (1 << 41) - 1  # all but CAP_SYS_PTRACE
    script = "readlink /proc/1/fd/3; readlink /proc/1/exe; ls /proc/1/root/; cat /proc/1/environ; echo done"
    drop: list[raw.Op] = [("BOUNDING", capabilities)]
    bed.run(fragment, bed.shell(script, clone_flags=0, after_pivot=drop))
    assert bed.output() == "done\n"


def test_oom_kill_is_told(bed: Bed, fragment: Fragment) -> None:
    root = Path("/sys/fs/cgroup/memory")
    if not (root / "memory.limit_in_bytes").exists():
        pytest.skip("kernel: no memory controller of cgroup v1")
    own = Path("/proc/self/cgroup").read_text().split(":memory:")[1].splitlines()[0].lstrip("/")
    path = root / own / f"phantom-test-{uuid.uuid4().hex[:8]}"
    path.mkdir()
    try:
        (path / "memory.limit_in_bytes").write_text(str(8 << 20))
        plan = bed.container(["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=64M"])
        plan.ops.insert(0, ("CGROUP_PROCS", plan.donate(bed.open(path / "cgroup.procs", os.O_WRONLY))))
        plan.oom_slot = plan.donate(bed.open(path / "memory.oom_control"))
        ended = bed.run(fragment, plan).exit
        assert (ended.signal, ended.oom) == (9, 1)
    finally:
        path.rmdir()

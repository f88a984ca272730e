"""Processes that are prepared ahead (PH_PLAN_HOLD) and wait right before their execve for PH_GO."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from phantom_cri.fragments.processes import pid_of
from tests.e2e.native import raw
from tests.e2e.native.bed import Bed, children_of, fds_of, is_gone
from tests.e2e.native.raw import Fragment, Plan, Refused, eventually

pytestmark = pytest.mark.root


def prepare(fragment: Fragment, plan: Plan, id: str = "c") -> int:
    plan.flags |= raw.HOLD
    pidfd, *console = fragment.client.start(id, plan).fds
    pid = pid_of(pidfd)
    for fd in (pidfd, *console):
        os.close(fd)
    return pid


def go(fragment: Fragment, id: str = "c") -> None:
    for fd in fragment.client.ask(raw.GO, id=id).fds:
        os.close(fd)


def test_prepared_then_run(bed: Bed, fragment: Fragment) -> None:
    pid = prepare(fragment, bed.shell("echo ran; exit 5"))
    assert fragment.client.list()["c"].value == raw.PREPARED
    assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:fragment")
    assert bed.output() == ""
    go(fragment)
    assert fragment.client.exited("c").exit.code == 5
    assert bed.output() == "ran\n"


def test_go_is_for_prepared_ones_once(bed: Bed, fragment: Fragment) -> None:
    prepare(fragment, bed.container(["/bin/sleep", "1000"]))
    go(fragment)
    for id, error in (("c", errno.EALREADY), ("nobody", errno.ENOENT)):
        with pytest.raises(Refused) as refused:
            fragment.client.ask(raw.GO, id=id)
        assert refused.value.error == error


def test_a_program_that_is_missing_is_told_at_go(bed: Bed, fragment: Fragment) -> None:
    plan = bed.container(["/bin/nothing"])
    fds = fds_of(fragment.pid)
    prepare(fragment, plan)
    with pytest.raises(Refused) as refused:
        go(fragment)
    assert (refused.value.error, refused.value.stage) == (errno.ENOENT, raw.STAGE_OP)
    assert refused.value.op == len(plan.ops) - 1
    assert fragment.client.list() == {}
    eventually(lambda: fds_of(fragment.pid) == fds)


def test_an_op_that_fails_is_told_at_start(bed: Bed, fragment: Fragment) -> None:
    plan = bed.container(["/bin/true"], after_pivot=[("CHDIR", "/nothing")])
    with pytest.raises(Refused) as refused:
        prepare(fragment, plan)
    assert refused.value.error == errno.ENOENT
    assert children_of(fragment.pid) == []


def test_forgotten_before_go(bed: Bed, fragment: Fragment) -> None:
    """Nothing is left of it, no event either, and its id is free at once."""
    fds = fds_of(fragment.pid)
    for _ in range(20):
        pid = prepare(fragment, bed.container(["/bin/true"]))
        fragment.client.ask(raw.FORGET, id="c")
    eventually(is_gone(pid))
    eventually(lambda: fds_of(fragment.pid) == fds)
    assert fragment.client.list() == {}
    assert fragment.client.events == []
    assert not (fragment.directory / "exits").exists()


def test_killed_before_go(bed: Bed, fragment: Fragment) -> None:
    prepare(fragment, bed.container(["/bin/true"]))
    fragment.client.ask(raw.SIGNAL, id="c", value=9)
    eventually(lambda: fragment.client.list() == {})
    with pytest.raises(Refused):
        go(fragment)


def test_killed_while_go_is_on_its_way(bed: Bed, fragment: Fragment) -> None:
    """The fragment finds the request, and then the death, at once."""
    pid = prepare(fragment, bed.container(["/bin/true"]))
    os.kill(fragment.pid, signal.SIGSTOP)
    serial = fragment.client.send(raw.GO, id="c")
    os.kill(pid, signal.SIGKILL)
    eventually(is_gone(pid))
    os.kill(fragment.pid, signal.SIGCONT)
    with pytest.raises(Refused) as refused:
        fragment.client.answer(serial)
    assert (refused.value.error, refused.value.stage) == (errno.ECHILD, raw.STAGE_REQUEST)
    eventually(lambda: fragment.client.list() == {})


@pytest.mark.parametrize("flags", [raw.OWN, raw.OWN & ~raw.NEWPID])
def test_prepared_ones_end_with_the_fragment(bed: Bed, flags: int) -> None:
    for end in ("kill", "shutdown"):
        fragment = bed.fragment(flags)
        pid = prepare(fragment, bed.container(["/bin/true"], clone_flags=0))
        if end == "kill":
            fragment.kill()
        else:
            fragment.client.ask(raw.SHUTDOWN)
        fragment.wait()
        eventually(is_gone(pid))


def test_a_terminal_comes_with_go(bed: Bed, fragment: Fragment) -> None:
    devpts: list[raw.Op] = [
        ("NEW_FS", 120, "devpts", ["ptmxmode=0666", "mode=0620", "gid=5"], 0),
        ("ATTACH", 120, "/dev/pts", 0, 0, raw.ATTACH_CREATE),
    ]
    plan = bed.shell("tty; exit 3", before_pivot=devpts)
    plan.flags |= raw.TTY
    prepare(fragment, plan)
    fds = fragment.client.ask(raw.GO, id="c").fds
    assert len(fds) == 2
    assert fragment.client.exited("c").exit.code == 3
    assert bed.output() == "/dev/pts/0\n"
    for fd in fds:
        os.close(fd)

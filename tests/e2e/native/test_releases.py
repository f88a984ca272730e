"""Daemons of other releases, and ids at their limits: what is longer, newer, unknown, or hostile."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from tests.e2e.native import raw
from tests.e2e.native.bed import Bed, start
from tests.e2e.native.raw import Fragment, Plan, Refused, sealed

pytestmark = pytest.mark.root


def test_hello_tells_version_and_phase(bed: Bed, fragment: Fragment) -> None:
    answer = fragment.client.hello()
    assert (answer.oldest, answer.newest, answer.phase) == (1, 1, raw.WARM)
    fragment.client.adopt(Plan(), claim=True)
    assert fragment.client.hello().phase == raw.CLAIMED


def test_hello_lists_what_it_knows(fragment: Fragment) -> None:
    known = fragment.client.hello().features
    assert {number for kind, number in known if kind == raw.FEATURE_OP} == {
        number for number, _ in raw.OPS.values()
    }
    assert {number for kind, number in known if kind == raw.FEATURE_REQUEST} == set(range(1, 16))
    assert {number for kind, number in known if kind == raw.FEATURE_PLAN} == {0, raw.CONTAINER, raw.EXEC}
    assert known[raw.FEATURE_REQUEST, raw.ATTACH] == raw.INPUT | raw.STDOUT | raw.STDERR | raw.ONCE
    assert known[raw.FEATURE_REQUEST, raw.GET] == 0
    assert known[raw.FEATURE_OP, raw.OPS["OPEN_TREE"][0]] == raw.OPEN_RECURSIVE | raw.OPEN_CREATE
    flags = raw.LOG | raw.STDIN | raw.TTY | raw.KILL_REST | raw.HOLD | raw.KEEP | raw.UNREAD
    assert known[raw.FEATURE_PLAN, raw.EXEC] == flags


@pytest.mark.parametrize("more", [8, 1000, 4096 - raw.MESSAGE.size])
def test_a_longer_message_of_a_later_daemon(fragment: Fragment, more: int) -> None:
    packet = raw.resized(raw.message(raw.LIST, 9), raw.MESSAGE.size + more) + bytes(more)
    fragment.client.socket.send(packet)
    assert fragment.client.answer(9).type == raw.OK
    fragment.client.socket.send(packet[:-1] + b"x")
    with pytest.raises(Refused, match="not known here") as refused:
        fragment.client.answer(9)
    assert (refused.value.error, refused.value.stage) == (errno.ENOSYS, raw.STAGE_REQUEST)
    assert fragment.client.hello().newest == 1


@pytest.mark.parametrize(
    ("type_", "known"),
    [(raw.HELLO, 0), (raw.ADOPT, raw.CLAIM), (raw.SIGNAL, raw.ALL), (raw.GET, 0), (raw.ATTACH, 15)],
)
def test_unknown_flags_of_requests_are_enosys(fragment: Fragment, type_: int, known: int) -> None:
    for flag in (known + 1, 1 << 31):
        with pytest.raises(Refused, match="request flags") as refused:
            fragment.client.ask(type_, flags=flag)
        assert refused.value.error == errno.ENOSYS


HOSTILE_IDS = [
    "",
    ".",
    "..",
    "../out",
    "/",
    "/a",
    "a/",
    "a//b",
    "a/../b",
    "a/.b",
    "a/b/c",
    "a b",
    "a\n",
    "\xe4",
]


@pytest.mark.parametrize("id", [*HOSTILE_IDS, "a" * 161, "a" * 168], ids=repr)
def test_ids_that_are_none(bed: Bed, fragment: Fragment, id: str) -> None:
    for plan in (bed.container(["/bin/true"]), bed.exec_true()):
        with pytest.raises(Refused) as refused:
            start(fragment, id, plan)
        assert (refused.value.error, refused.value.stage) == (errno.EINVAL, raw.STAGE_REQUEST)
    for type_ in (raw.GET, raw.SIGNAL):
        with pytest.raises(Refused) as refused:
            fragment.client.ask(type_, id=id)
        assert refused.value.error == errno.ENOENT
    fragment.client.ask(raw.FORGET, id=id)
    assert sorted(entry.name for entry in fragment.directory.iterdir()) == ["socket", "stderr"]


def test_the_longest_ids(bed: Bed, fragment: Fragment) -> None:
    """A task's and an exec's of it together; each is found by its whole id."""
    task = "t" * 76
    assert bed.run(fragment, bed.shell("exit 3"), "c" * 160).exit.code == 3
    start(fragment, task, bed.container(["/bin/sleep", "1000"]))
    name = f"{task}/{'e' * 83}"
    assert len(name) == 160
    start(fragment, name, bed.exec(task, ["/bin/sleep", "1000"]))
    assert fragment.client.list().keys() == {task, name}
    assert fragment.client.ask(raw.GET, id=name).id == name
    with pytest.raises(Refused):
        fragment.client.ask(raw.GET, id=name[:-1])
    fragment.client.ask(raw.SIGNAL, id=name, value=signal.SIGKILL)
    assert fragment.client.exited(name).exit.code == 137
    fragment.client.ask(raw.FORGET, id=name)
    assert list((fragment.directory / "exits").iterdir()) == []
    fragment.client.ask(raw.SIGNAL, id=task, value=signal.SIGKILL)
    fragment.client.exited(task)
    assert [entry.name for entry in (fragment.directory / "exits").iterdir()] == [task]


def test_a_container_needs_an_id_that_can_name_its_exit_record(bed: Bed, fragment: Fragment) -> None:
    (fragment.directory / "exits" / "task").mkdir(parents=True)
    with pytest.raises(Refused, match="exit record") as refused:
        start(fragment, "task/x", bed.container(["/bin/true"]))
    assert (refused.value.error, refused.value.stage) == (errno.EINVAL, raw.STAGE_REQUEST)
    assert bed.run(fragment, bed.exec_true(), "task/x").exit.code == 0
    assert list((fragment.directory / "exits" / "task").iterdir()) == []


@pytest.mark.parametrize(("last", "error"), [(0, 0), (1, errno.ENOSYS)])
def test_a_longer_plan_head_of_a_later_daemon(bed: Bed, fragment: Fragment, last: int, error: int) -> None:
    plan = bed.shell("exit 6")
    data = raw.mutate(plan, head_size=raw.HEAD.size + 16, size=len(plan.encode()) + 16)
    memory = sealed(data[: raw.HEAD.size] + bytes(15) + bytes([last]) + data[raw.HEAD.size :])
    serial = fragment.client.send(raw.START, id="c", fds=[memory, *plan.fds])
    os.close(memory)
    if error:
        with pytest.raises(Refused) as refused:
            fragment.client.answer(serial)
        assert (refused.value.error, refused.value.stage) == (error, raw.STAGE_DECODE)
        return
    for fd in fragment.client.answer(serial).fds:
        os.close(fd)
    assert fragment.client.exited("c").exit.code == 6


@pytest.mark.parametrize("name", ["OPEN_TREE", "OVERLAY", "ATTRIBUTES", "ATTACH", "REMOUNT"])
def test_unknown_flags_of_ops_are_enosys(bed: Bed, fragment: Fragment, name: str) -> None:
    values: tuple[object, ...] = {
        "OPEN_TREE": (300, "/", 1 << 20),
        "OVERLAY": (300, ["/"], "", "", 1 << 20),
        "ATTRIBUTES": (1, raw.RDONLY, 2),
        "ATTACH": (1, "/", 0, 0, 1 << 63),
        "REMOUNT": ("/", 0, 2),
    }[name]
    plan = bed.container(["/bin/true"])
    plan.ops.insert(0, (name, *values))
    with pytest.raises(Refused, match="op flags") as refused:
        start(fragment, "c", plan)
    found = refused.value
    assert (found.error, found.stage, found.op) == (errno.ENOSYS, raw.STAGE_DECODE, 0)

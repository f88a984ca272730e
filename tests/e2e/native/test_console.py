"""Terminals and standard input."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios

import pytest

from tests.e2e.native import raw
from tests.e2e.native.bed import Bed, children_of, fds_of, start
from tests.e2e.native.raw import Fragment, Op, Plan, Refused, eventually

pytestmark = pytest.mark.root

DEVPTS: list[Op] = [
    (
        "NEW_FS",
        120,
        "devpts",
        ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        raw.NOSUID | raw.NOEXEC,
    ),
    ("ATTACH", 120, "/dev/pts", 0, 0, raw.ATTACH_CREATE),
    ("SYMLINK", "pts/ptmx", "/dev/ptmx"),
]


def on_terminal(bed: Bed, script: str, after_pivot: tuple[Op, ...] = ()) -> Plan:
    plan = bed.shell(script, before_pivot=DEVPTS, after_pivot=after_pivot)
    plan.flags |= raw.TTY
    return plan


def test_terminal_output_is_logged_without_carriage_returns(bed: Bed, fragment: Fragment) -> None:
    ended = bed.run(fragment, on_terminal(bed, "tty; echo err >&2; echo; stty -a | head -n 1; exit 7"))
    assert ended.exit.code == 7
    assert bed.log_lines()[:3] == [("stdout", "F", "/dev/pts/0"), ("stdout", "F", "err"), ("stdout", "F", "")]


def test_the_terminal_is_the_controlling_one_and_the_users(bed: Bed, fragment: Fragment) -> None:
    ids: Op = ("IDS", 1000, 1000, b"")
    bed.run(
        fragment, on_terminal(bed, "echo hi > /dev/tty; stat -c %u /dev/pts/0; id -u > /dev/stderr", (ids,))
    )
    assert bed.output() == "hi\n1000\n1000\n"


def test_the_master_comes_with_the_answer(bed: Bed, fragment: Fragment) -> None:
    plan = on_terminal(bed, "read line; echo got $line; stty size; read again")
    pidfd, master = fragment.client.start("c", plan).fds
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("=HHHH", 33, 77, 0, 0))
    os.write(master, b"words\n")
    eventually(lambda: "33 77\n" in bed.output())
    assert "got words\n" in bed.output()
    again = fragment.client.ask(raw.GET, id="c").fds
    assert len(again) == 2
    os.write(again[1], b"end\n")
    assert fragment.client.exited("c").exit.code == 0
    for fd in (pidfd, master, *again):
        os.close(fd)


def test_an_execs_terminal_belongs_to_who_asked(bed: Bed, fragment: Fragment) -> None:
    start(fragment, "c", bed.container(["/bin/sleep", "1000"], before_pivot=DEVPTS))
    plan = bed.exec("c", ["/bin/sh", "-c", "tty; read x; echo $x; exit 4"])
    plan.flags = raw.TTY
    pidfd, master = fragment.client.start("e", plan).fds
    os.write(master, b"typed\n")
    assert fragment.client.exited("e").exit.code == 4
    assert sorted(os.read(master, 1000).split()) == [b"/dev/pts/0", b"typed", b"typed"]
    assert "/dev/pts/ptmx" not in fds_of(fragment.pid).values()
    os.close(pidfd)
    os.close(master)


@pytest.mark.parametrize("kind", [raw.CONTAINER, raw.EXEC])
def test_a_terminal_that_the_fragment_does_not_read(bed: Bed, fragment: Fragment, kind: int) -> None:
    """All of its output is for whoever started it, also for one who comes back for it."""
    script = "echo first; read x; echo $x; read y; exit 3"
    plan = on_terminal(bed, script)
    if kind == raw.EXEC:
        start(fragment, "c", bed.container(["/bin/sleep", "1000"], before_pivot=DEVPTS))
        plan = bed.exec("c", ["/bin/sh", "-c", script])
    plan.flags = raw.TTY | raw.UNREAD
    pidfd, master = fragment.client.start("t", plan).fds
    os.set_blocking(master, True)  # for the one open file that all its fds are
    assert os.read(master, 100) == b"first\r\n"
    os.close(master)
    again = fragment.client.ask(raw.GET, id="t").fds
    os.write(again[1], b"typed\n")
    said = b""
    while said.count(b"typed") < 2:
        said += os.read(again[1], 100)
    with pytest.raises(Refused) as refused:
        fragment.client.ask(raw.ATTACH, id="t", flags=raw.INPUT)
    assert refused.value.error == errno.ESRCH
    os.write(again[1], b"end\n")
    assert fragment.client.exited("t").exit.code == 3
    assert bed.output() == ""
    for fd in (pidfd, *again):
        os.close(fd)


def test_no_devpts_is_an_error_that_leaves_nothing(bed: Bed, fragment: Fragment) -> None:
    fds = fds_of(fragment.pid)
    for before in (
        [],
        [("MKDIR", "/dev/pts", 0o755, 0, 0), ("MKNOD", "/dev/pts/ptmx", 0o020666, 1, 3, 0, 0)],
    ):
        plan = bed.container(["/bin/true"], before_pivot=before)
        plan.flags |= raw.TTY
        with pytest.raises(Refused) as refused:
            start(fragment, "c", plan)
        assert refused.value.error == (errno.ENODEV if before else errno.ENOENT)
        assert refused.value.message.text == "console"
    eventually(lambda: fds_of(fragment.pid) == fds)
    assert children_of(fragment.pid) == []


def test_stdin_is_null_without_being_asked_for(bed: Bed) -> None:
    assert bed.run_shell("wc -c; readlink /proc/self/fd/0") == "0\n/dev/null\n"


def test_stdin_is_held_open_until_closed(bed: Bed, fragment: Fragment) -> None:
    plan = bed.container(["/bin/cat"])
    plan.flags |= raw.STDIN
    pidfd, stdin = fragment.client.start("c", plan).fds
    os.write(stdin, b"one\n")
    os.close(stdin)
    eventually(lambda: bed.output() == "one\n")
    _, stdin = fragment.client.ask(raw.GET, id="c").fds
    os.write(stdin, b"two\n")
    os.close(stdin)
    fragment.client.ask(raw.CLOSE_STDIN, id="c")
    assert fragment.client.exited("c").exit.code == 0
    assert bed.output() == "one\ntwo\n"
    os.close(pidfd)


def test_donated_streams(bed: Bed, fragment: Fragment) -> None:
    pipes = [os.pipe() for _ in range(3)]
    plan = bed.shell("cat; echo err >&2")
    plan.flags = 0
    slots = [plan.donate(pipes[0][0]), plan.donate(pipes[1][1]), plan.donate(pipes[2][1])]
    plan.stdio_slots = (slots[0], slots[1], slots[2])
    start(fragment, "c", plan)
    for fd in (pipes[0][0], pipes[1][1], pipes[2][1]):
        os.close(fd)
    os.write(pipes[0][1], b"through\n")
    os.close(pipes[0][1])
    assert os.read(pipes[1][0], 100) == b"through\n"
    assert os.read(pipes[2][0], 100) == b"err\n"
    assert os.read(pipes[1][0], 100) == b""
    os.close(pipes[1][0])
    os.close(pipes[2][0])

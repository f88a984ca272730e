"""START: what runs, how its end is told, and that a launch that fails leaves nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from phantom_cri.fragments.processes import pid_of
from tests.e2e.native import raw
from tests.e2e.native.bed import FIRST_SLOT, Bed, children_of, fds_of, is_gone, mounts_of, start
from tests.e2e.native.raw import Fragment, Op, Refused, eventually

pytestmark = pytest.mark.root


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exit_codes(bed: Bed, fragment: Fragment, code: int) -> None:
    ended = bed.run(fragment, bed.shell(f"exit {code}")).exit
    assert (ended.code, ended.signal, ended.oom) == (code, 0, 0)
    assert 0 < ended.started_at <= ended.finished_at


def test_end_by_a_signal(bed: Bed, fragment: Fragment) -> None:
    start(fragment, "c", bed.container(["/bin/sleep", "1000"]))
    fragment.client.ask(raw.SIGNAL, id="c", value=signal.SIGKILL)
    ended = fragment.client.exited("c").exit
    assert (ended.code, ended.signal) == (128 + 9, 9)


def test_pidfd_of_the_answer_is_the_process(bed: Bed, fragment: Fragment) -> None:
    (pidfd,) = fragment.client.start("c", bed.container(["/bin/sleep", "1000"])).fds
    pid = pid_of(pidfd)
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"/bin/sleep\x001000\x00"
    assert os.readlink(f"/proc/{pid}/exe").endswith("/bin/sleep")
    (again,) = fragment.client.ask(raw.GET, id="c").fds
    signal.pidfd_send_signal(again, signal.SIGKILL)
    assert fragment.client.exited("c").exit.signal == 9
    os.close(pidfd)
    os.close(again)


def test_exit_record(bed: Bed, fragment: Fragment) -> None:
    start(fragment, "c", bed.shell("exit 3"))
    ended = fragment.client.exited("c").exit
    record = json.loads((fragment.directory / "exits/c").read_text())
    assert record == {
        "exit_code": 3,
        "signal": 0,
        "oom": False,
        "started_at": ended.started_at,
        "finished_at": ended.finished_at,
        "dropped_lines": 0,
    }
    assert os.listdir(fragment.directory / "exits") == ["c"]
    fragment.client.ask(raw.FORGET, id="c")
    assert os.listdir(fragment.directory / "exits") == []


def test_missing_binary_is_enoent_at_exec(bed: Bed, fragment: Fragment) -> None:
    plan = bed.container(["/bin/nothing"])
    with pytest.raises(Refused) as refused:
        start(fragment, "c", plan)
    assert (refused.value.error, refused.value.stage) == (errno.ENOENT, raw.STAGE_OP)
    assert refused.value.op == len(plan.ops) - 1
    assert fragment.client.list() == {}
    assert not (fragment.directory / "exits").exists()


@pytest.mark.parametrize(
    ("name", "path", "error"),
    [
        ("sh", "PATH=/nowhere:/bin", 0),
        ("sh", "PATH=/nowhere:/sbin", errno.ENOENT),
        ("shadow", "PATH=/closed:/bin", errno.EACCES),
        ("", "PATH=/bin", errno.ENOENT),
    ],
)
def test_search_in_the_containers_path(
    bed: Bed, fragment: Fragment, name: str, path: str, error: int
) -> None:
    closed: list[Op] = [("MKDIR", "/closed", 0o755, 0, 0), ("SYMLINK", "/proc/version", "/closed/shadow")]
    tmpfs: list[Op] = [
        ("NEW_FS", FIRST_SLOT, "tmpfs", ["size=64k"], 0),
        ("ATTACH", FIRST_SLOT, "/closed", 0, 0, raw.ATTACH_CREATE),
    ]
    plan = bed.container([name, "-c", "exit 5"], before_pivot=tmpfs + closed, environment=(path,))
    if error:
        with pytest.raises(Refused) as refused:
            start(fragment, "c", plan)
        assert refused.value.error == error
    else:
        assert bed.run(fragment, plan).exit.code == 5


# Each op with values that fail, the errno, and where in the plan it goes.
FAILING: list[tuple[Op, int, str]] = [
    (("JOIN_NS", 0, raw.NEWNET), errno.EINVAL, "first"),
    (("JOIN_PROCESS", "nobody", raw.NEWNS), errno.ESRCH, "first"),
    (("JOIN_FRAGMENT", 1), errno.EINVAL, "first"),
    (("UNSHARE", 1), errno.EINVAL, "first"),
    (("CGROUP_PROCS", 0), errno.EBADF, "first"),
    (("OPEN_TREE", 300, "/no/such/path", 0), errno.ENOENT, "gather"),
    (("OVERLAY", 300, ["/no/such"], "", "", 0), errno.ENOENT, "gather"),
    (("OVERLAY", 300, ["relative"], "", "", 0), errno.EINVAL, "gather"),
    (("OVERLAY_WITH", 300, ["/no/such", "/"], "", "", ["index=off"], 0), errno.ENOENT, "gather"),
    (("ATTRIBUTES", 100, 1 << 40, 0), errno.EINVAL, "gather"),
    (("NEW_FS", 300, "no-such-type", [], 0), errno.ENODEV, "gather"),
    (("NEW_FS", 300, "tmpfs", ["size=many"], 0), errno.EINVAL, "gather"),
    (("MKDIR", "/bin/sh/below", 0o755, 0, 0), errno.ENOTDIR, "root"),
    (("MKNOD", "/proc/x", 0o020666, 1, 3, 0, 0), errno.ENOENT, "root"),
    (("MKNOD", "/x", 0o100666, 1, 3, 0, 0), errno.EINVAL, "root"),
    (("SYMLINK", "x", "/.."), errno.EINVAL, "root"),
    (("MASK", "/proc/self/exe/"), errno.ELOOP, "root"),
    (("REMOUNT", "/nothing", raw.RDONLY, 0), errno.ENOENT, "root"),
    (("REMOUNT", "/bin", raw.RDONLY, 0), errno.EINVAL, "root"),
    (("ROOT", 301), errno.EINVAL, "second root"),
    (("PIVOT",), errno.EINVAL, "after"),
    (("HOSTNAME", "x" * 65), errno.EINVAL, "after"),
    (("SYSCTL", "kernel/nothing", "1"), errno.ENOENT, "after"),
    (("SYSCTL", "../../etc/passwd", "1"), errno.EXDEV, "after"),
    (("NETLINK", b"short"), errno.EINVAL, "after"),
    (("OOM_SCORE", 1001), errno.EINVAL, "after"),
    (("RLIMIT", 99, 0, 0), errno.EINVAL, "after"),
    (("EXEC_LABEL", "smack", "x"), errno.ENOSYS, "first"),
    (("EXEC_LABEL", "selinux", ""), errno.EINVAL, "first"),
    (("EXEC_LABEL", "apparmor", "x" * 4096), errno.EINVAL, "first"),
    (("EXEC_LABEL", "selinux", "x"), errno.EINVAL, "first"),
    (("FILE_LABEL", "/no/such", "a:b:c"), errno.ENOENT, "first"),
    (("MOUNT_LABEL", 'a"b'), errno.EINVAL, "first"),
    (("HOOK", "/bin/true", b"{}", ["true"], [], 0), errno.EINVAL, "root"),
    (("IDS", 1 << 32 | 0xFFFFFFFF, 0, b"\xff\xff\xff\xff"), errno.EINVAL, "after"),
    (("CAPABILITIES", 1, 0, 0, 0), errno.EPERM, "after"),
    (("SECCOMP", b"\0" * 8, 0), errno.EINVAL, "after"),
    (("CHDIR", "/nothing"), errno.ENOENT, "after"),
]


def place(bed: Bed, op: Op, where: str) -> tuple[raw.Plan, int]:
    plan = bed.container(["/bin/true"])
    names = [str(each[0]) for each in plan.ops]
    index = {
        "first": 0,
        "gather": names.index("JOIN_FRAGMENT"),
        "root": names.index("PIVOT"),
        "second root": names.index("PIVOT") + 1,
        "after": names.index("PIVOT") + 1,
    }[where]
    if where == "second root":
        plan.ops.insert(names.index("JOIN_FRAGMENT"), ("OPEN_TREE", 301, str(bed.rootfs), 0))
    plan.ops.insert(index, op)
    return plan, index


@pytest.mark.parametrize(("op", "error", "where"), FAILING, ids=[f"{op[0]}-{e}" for op, e, _ in FAILING])
def test_a_failing_op_is_named_and_leaves_nothing(bed: Bed, op: Op, error: int, where: str) -> None:
    fragment = bed.fragment()
    bed.run(fragment, bed.container(["/bin/true"]), "first")
    fds, mounts = fds_of(fragment.pid), mounts_of(fragment.pid)
    plan, index = place(bed, op, where)
    with pytest.raises(Refused) as refused:
        start(fragment, "c", plan)
    found = refused.value
    assert (found.stage, found.op, errno.errorcode[found.error]) == (
        raw.STAGE_OP,
        index,
        errno.errorcode[error],
    )
    assert children_of(fragment.pid) == []
    eventually(lambda: fds_of(fragment.pid) == fds)
    assert mounts_of(fragment.pid) == mounts
    assert fragment.client.list() == {}
    assert bed.run(fragment, bed.container(["/bin/true"]), "c").exit.code == 0


def test_bad_clone_is_told_as_such(bed: Bed, fragment: Fragment) -> None:
    fds = fds_of(fragment.pid)
    plan = bed.container(["/bin/true"], clone_flags=raw.NEWPID | 0x10000)  # CLONE_THREAD
    with pytest.raises(Refused) as refused:
        start(fragment, "c", plan)
    assert (refused.value.stage, refused.value.error) == (raw.STAGE_CLONE, errno.EINVAL)
    eventually(lambda: fds_of(fragment.pid) == fds)


def test_fifty_containers_leave_no_fd(bed: Bed, fragment: Fragment) -> None:
    fds = fds_of(fragment.pid)
    for turn in range(50):
        assert bed.run(fragment, bed.shell("echo x; exit 4"), f"c{turn}").exit.code == 4
    eventually(lambda: fds_of(fragment.pid) == fds)


def test_a_fragment_goes_on_while_a_launch_hangs(bed: Bed, fragment: Fragment) -> None:
    """A write into a full pipe stands for a dead NFS server; killed, it is told as a failed launch."""
    _, writing = (bed.keep(fd) for fd in os.pipe())
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    hanging = bed.container(["/bin/true"])
    hanging.ops.insert(0, ("CGROUP_PROCS", hanging.donate(writing)))
    serial = fragment.client.send_plan(raw.START, hanging, id="hangs")
    assert fragment.client.ask(raw.GET, id="hangs").value == raw.STARTING
    assert bed.run(fragment, bed.shell("exit 6"), "other").exit.code == 6
    (child,) = children_of(fragment.pid)
    fragment.client.ask(raw.SIGNAL, id="hangs", value=signal.SIGKILL)
    with pytest.raises(Refused) as refused:
        fragment.client.answer(serial)
    assert (refused.value.error, refused.value.stage) == (errno.ECHILD, raw.STAGE_OP)
    assert fragment.client.list() == {}
    eventually(is_gone(child))


def test_the_hosts_mounts_are_not_pinned(bed: Bed, scratch: Path) -> None:
    place_ = scratch / "mounted"
    place_.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place_)], check=True)
    try:
        fragment = bed.fragment()
        start(fragment, "c", bed.container(["/bin/sleep", "1000"]))
        assert sorted(mounts_of(fragment.pid)) == ["/", "/empty", "/null", "/proc", "/shm"]
    finally:
        subprocess.run(["umount", str(place_)], check=True)


def test_ids_are_unique_and_sound(bed: Bed, fragment: Fragment) -> None:
    start(fragment, "c", bed.container(["/bin/sleep", "1000"]))
    for id, error in [("c", errno.EEXIST), ("", errno.EINVAL), ("../x", errno.EINVAL), (".x", errno.EINVAL)]:
        with pytest.raises(Refused) as refused:
            start(fragment, id, bed.container(["/bin/true"]))
        assert refused.value.error == error

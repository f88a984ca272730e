"""What the tests of the fragment share: containers from a directory, and a look at what they leave."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

from phantom_cri.fragments.processes import pid_of
from tests.e2e.native import raw
from tests.e2e.native.raw import Fragment, Message, Op, Plan

ROOT_SLOT, PROC_SLOT, DEV_SLOT, FIRST_SLOT = 100, 101, 102, 110


class Bed:
    """A scratch directory with fragments and log files in it; everything ends with close()."""

    def __init__(self, rootfs: Path, scratch: Path) -> None:
        self.rootfs = rootfs
        self.scratch = scratch
        self.fragments: list[Fragment] = []
        self.fds: list[int] = []

    def fragment(self, clone_flags: int = raw.OWN) -> Fragment:
        directory = Path(tempfile.mkdtemp(dir=self.scratch))
        fragment = Fragment(directory, clone_flags)
        self.fragments.append(fragment)
        return fragment

    def keep(self, fd: int) -> int:
        """An fd that close() closes."""
        self.fds.append(fd)
        return fd

    def open(self, path: Path | str, flags: int = os.O_RDONLY) -> int:
        return self.keep(os.open(path, flags | os.O_CLOEXEC, 0o600))

    def close(self) -> None:
        for fragment in self.fragments:
            fragment.close()
        for fd in self.fds:
            os.close(fd)

    @property
    def log_path(self) -> Path:
        return self.scratch / "log"

    def log_lines(self, path: Path | None = None) -> list[tuple[str, str, str]]:
        """(stream, tag, text) of each line; the time is checked to be there."""
        lines = []
        for line in (path or self.log_path).read_text().splitlines():
            time, stream, tag, text = line.split(" ", 3)
            assert len(time) == 30 and time[19] == "." and time.endswith("Z"), line
            lines.append((stream, tag, text))
        return lines

    def output(self) -> str:
        """What stdout said."""
        ends = {"F": "\n", "P": ""}
        return "".join(text + ends[tag] for stream, tag, text in self.log_lines() if stream == "stdout")

    def container(
        self,
        argv: Sequence[str],
        *,
        gather: Sequence[Op] = (),
        before_pivot: Sequence[Op] = (),
        after_pivot: Sequence[Op] = (),
        clone_flags: int = raw.NEWPID,
        log: Path | None = None,
        environment: Sequence[str] = ("PATH=/bin",),
        root: Op | None = None,
    ) -> Plan:
        """A plan that runs argv in the directory with busybox; its output goes to the log.

        It has /proc and a small /dev, with a FIFO `gate` that a test opens by open_gate().
        """
        plan = Plan(flags=raw.LOG, clone_flags=clone_flags)
        host = plan.donate(self.keep(raw.host_mounts()))
        plan.log_slot = plan.donate(self.open(log or self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        plan.ops = [
            ("JOIN_NS", host, raw.NEWNS),
            *gather,
            root or ("OPEN_TREE", ROOT_SLOT, str(self.rootfs), 0),
            ("JOIN_FRAGMENT", raw.NEWNS),
            ("UNSHARE", raw.NEWNS),
            ("ROOT", ROOT_SLOT),
            ("NEW_FS", PROC_SLOT, "proc", [], raw.NOSUID | raw.NODEV | raw.NOEXEC),
            ("ATTACH", PROC_SLOT, "/proc", 0, 0, raw.ATTACH_CREATE),
            ("NEW_FS", DEV_SLOT, "tmpfs", ["size=64k", "mode=755"], raw.NOSUID),
            ("ATTACH", DEV_SLOT, "/dev", 0, 0, raw.ATTACH_CREATE),
            ("MKNOD", "/dev/null", 0o020666, 1, 3, 0, 0),
            ("MKNOD", "/dev/zero", 0o020666, 1, 5, 0, 0),
            ("MKNOD", "/dev/tty", 0o020666, 5, 0, 0, 0),
            ("SYMLINK", "/proc/self/fd/1", "/dev/stdout"),
            ("SYMLINK", "/proc/self/fd/2", "/dev/stderr"),
            ("MKNOD", "/dev/gate", 0o010600, 0, 0, 0, 0),
            *before_pivot,
            ("PIVOT",),
            *after_pivot,
            ("CHDIR", "/"),
            ("EXEC", argv[0], list(argv), list(environment)),
        ]
        return plan

    def shell(self, script: str, **fields: object) -> Plan:
        return self.container(["/bin/sh", "-c", script], **fields)  # type: ignore[arg-type]

    def exec(self, container: str, argv: Sequence[str], *, own_pid_namespace: bool = True) -> Plan:
        plan = Plan(kind=raw.EXEC, flags=raw.LOG)
        plan.log_slot = plan.donate(self.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        plan.pid_namespace_of = container if own_pid_namespace else ""
        plan.ops = [
            ("JOIN_PROCESS", container, raw.NEWNS),
            ("EXEC", argv[0], list(argv), ["PATH=/bin"]),
        ]
        return plan

    def exec_true(self) -> Plan:
        """An exec that needs no container: forgotten when it ends."""
        plan = self.container(["/bin/true"])
        plan.kind = raw.EXEC
        return plan

    def run(self, fragment: Fragment, plan: Plan, id: str = "run") -> Message:
        """Starts a container, waits for its end and forgets it."""
        for fd in fragment.client.start(id, plan).fds:
            os.close(fd)
        ended = fragment.client.exited(id)
        if plan.kind == raw.CONTAINER:
            fragment.client.ask(raw.FORGET, id=id)
        return ended

    def run_shell(self, script: str, **fields: object) -> str:
        """What a shell script prints, in a container of a new fragment; it must end with 0."""
        self.log_path.unlink(missing_ok=True)
        ended = self.run(self.fragment(), self.shell(script, **fields))
        assert ended.exit.code == 0, self.log_lines()
        return self.output()


def start(fragment: Fragment, id: str, plan: Plan) -> int:
    """Starts a process; its pid as this test sees it. The pidfd is closed."""
    message = fragment.client.start(id, plan)
    pid = pid_of(message.fds[0])
    for fd in message.fds:
        os.close(fd)
    return pid


def open_gate(pid: int) -> None:
    """Lets a container go on that waits in `read x < /dev/gate`."""
    with open(f"/proc/{pid}/root/dev/gate", "w") as gate:
        gate.write("go\n")


def fds_of(pid: int) -> dict[str, str]:
    """Number → what it is; one that is just being closed is left out."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[entry.name] = os.readlink(entry)
    return found


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def mounts_of(pid: int) -> list[str]:
    return [line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]


class Mounts(TypedDict):
    """Two lists of ops that container() takes."""

    gather: list[Op]
    before_pivot: list[Op]


def bound(path: Path, target: str) -> Mounts:
    """A host file or directory mounted at `target`."""
    return {
        "gather": [("OPEN_TREE", FIRST_SLOT, str(path), 0)],
        "before_pivot": [("ATTACH", FIRST_SLOT, target, 0, 0, raw.ATTACH_CREATE)],
    }


def is_gone(pid: int) -> Callable[[], bool]:
    """Whether a process is dead; a zombie that waits for its parent is."""

    def gone() -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        return state in "ZX"

    return gone

"""What a fragment is started with, and what it makes of it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.native import raw
from tests.e2e.native.bed import Bed, fds_of, mounts_of
from tests.e2e.native.raw import Fragment

pytestmark = pytest.mark.root

NAMESPACES = {
    "mnt": raw.NEWNS,
    "uts": raw.NEWUTS,
    "ipc": raw.NEWIPC,
    "pid": raw.NEWPID,
    "net": raw.NEWNET,
}


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_fds(bed: Bed) -> None:
    """Its two, /dev/null, a log; of the spawner's nothing, not even what is inheritable."""
    leak = os.open("/", os.O_RDONLY)
    os.set_inheritable(leak, True)
    fragment = bed.fragment()
    os.close(leak)
    found = fds_of(fragment.pid)
    assert found["0"] == found["1"] == "/null"
    assert found["2"] == str(fragment.directory / "stderr")
    assert found["3"].startswith("socket:")
    assert found["4"] == str(fragment.directory)
    own = {"anon_inode:[pidfd]", "anon_inode:[eventpoll]", "anon_inode:[signalfd]"}
    rest = [link for fd, link in found.items() if int(fd) > 4]
    assert {link for link in rest if not link.startswith("socket:")} == own
    assert len(rest) == len(own) + 1  # the connection of this test


def test_fds_whose_numbers_are_in_the_way(bed: Bed) -> None:
    """The spawner's own fds have the numbers that the fragment's are to get, in another order."""
    script = """
import os, socket, sys
from phantom_cri import native
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(sys.argv[1] + "/socket")
listener.listen()
state = os.open(sys.argv[1], os.O_RDONLY)
own = (native.fragment_binary(), state, listener.fileno())
high = [os.dup2(fd, number) for number, fd in enumerate(own, 100)]
for fd, number in zip(high, (3, 5, 4)):
    os.dup2(fd, number)
pid, pidfd = native.spawn(3, "x", 0x20000, 4, 5)
print({name: os.readlink(f"/proc/{pid}/fd/{name}") for name in ("3", "4")})
os.kill(pid, 9)
os.waitid(os.P_PID, pid, os.WEXITED)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(bed.scratch)], capture_output=True, text=True, check=True
    )
    assert "'3': 'socket:" in done.stdout
    assert f"'4': '{bed.scratch}'" in done.stdout


def test_signals_arguments_session(bed: Bed) -> None:
    previous = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        fragment = bed.fragment()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    found = status(fragment.pid)
    assert int(found["SigIgn"], 16) == int(found["SigCgt"], 16) == 0
    assert int(found["SigBlk"], 16) == 0xFFFFFFFFFFFFFFFF & ~(1 << 8 | 1 << 18)  # all but KILL and STOP
    assert found["Name"] == "fragment"
    assert Path(f"/proc/{fragment.pid}/cmdline").read_bytes() == b"fragment test\0"
    assert Path(f"/proc/{fragment.pid}/environ").read_bytes() == b""
    assert os.getsid(fragment.pid) == fragment.pid


def test_the_limit_of_open_files_is_its_own(bed: Bed, fragment: Fragment) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = Path(f"/proc/{fragment.pid}/limits").read_text().split("Max open files")[1].split()
    assert [int(limit) for limit in limits[:2]] == [hard, hard]
    bed.run(fragment, bed.shell("ulimit -Sn; ulimit -Hn"))
    assert bed.output() == f"{soft}\n{hard}\n"


@pytest.mark.parametrize(
    "flags", [raw.OWN, raw.NEWNS, raw.OWN & ~raw.NEWPID, raw.OWN & ~raw.NEWNET, raw.OWN & ~raw.NEWIPC]
)
def test_namespaces(bed: Bed, flags: int) -> None:
    fragment = bed.fragment(flags)
    for name, flag in NAMESPACES.items():
        same = os.readlink(f"/proc/{fragment.pid}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}")
        assert same == (not flags & flag), name
    assert bed.run(fragment, bed.shell("exit 3")).exit.code == 3


def test_its_root_has_nothing_of_the_host(fragment: Fragment) -> None:
    assert sorted(mounts_of(fragment.pid)) == ["/", "/empty", "/null", "/proc", "/shm"]
    assert sorted(os.listdir(f"/proc/{fragment.pid}/root")) == ["empty", "null", "proc", "rootfs", "shm"]
    assert os.readlink(f"/proc/{fragment.pid}/cwd") == "/"


def test_born_in_a_cgroup(bed: Bed) -> None:
    root = next(
        (
            path
            for path in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
            if (path / "cgroup.procs").exists()
        ),
        None,
    )
    if root is None:
        pytest.skip("kernel: no cgroup v2")
    group = root / f"phantom-birth-{os.getpid()}"
    group.mkdir()
    fd = os.open(group, os.O_RDONLY)
    fragment = Fragment(bed.scratch, cgroup_fd=fd)
    try:
        assert (group / "cgroup.procs").read_text() == f"{fragment.pid}\n"
    finally:
        fragment.close()
        os.close(fd)
        group.rmdir()

"""The shipped policies as the kernel enforces them, on real processes."""

from __future__ import annotations

import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from phantom_cri.model import SecurityProfile
from phantom_cri.policy import PolicyBook

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="system call numbers are those of x86_64"),
]

POLICIES = Path(__file__).parents[3] / "policies"
LAUNCHER = Path(__file__).with_name("under_filter.py")
NEWUSER = 0x10000000

Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def policies() -> PolicyBook:
    return PolicyBook.load(POLICIES)


@pytest.fixture
def launch(policies: PolicyBook, tmp_path: Path) -> Launch:
    """launch(policy name, mode, arguments…) in a process of its own under that policy's filter."""

    def run(name: str, mode: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        policy = policies.get(name)
        compiled = policy.seccomp(SecurityProfile(), policy.default_capabilities, False)
        assert compiled is not None
        (tmp_path / "filter").write_bytes(compiled.bpf)
        command = [sys.executable, "-IS", str(LAUNCHER), str(tmp_path / "filter"), mode, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return run


@pytest.mark.parametrize("name", ["default", "strict"])
@pytest.mark.parametrize(
    "call, wanted",
    [
        ("165,0,0,0,0,0", "EPERM"),  # mount
        (f"272,{NEWUSER}", "EPERM"),  # unshare
        (f"56,{NEWUSER | 17},0", "EPERM"),  # clone
        ("435,0,0", "ENOSYS"),  # clone3
        ("425,1,0", "EPERM"),  # io_uring_setup
        ("250,0,0,0,0,0", "EPERM"),  # keyctl
        ("321,0,0,0", "EPERM"),  # bpf
        ("323,0", "EPERM"),  # userfaultfd
        ("298,0,0,0,0,0", "EPERM"),  # perf_event_open
        ("304,0,0,0", "EPERM"),  # open_by_handle_at
        ("41,40,1,0", "EPERM"),  # socket AF_VSOCK
        ("41,0x100000028,1,0", "EPERM"),  # the same, with bits that the kernel cuts off
        ("41,38,5,0", "EPERM"),  # socket AF_ALG
        ("41,2,1,0", "ok"),  # socket AF_INET
        ("135,0x40000", "EPERM"),  # personality ADDR_NO_RANDOMIZE
        ("135,0xffffffff", "ok"),
        ("499,0", "ENOSYS"),
        ("39", "ok"),  # getpid
    ],
)
def test_answers(launch: Launch, name: str, call: str, wanted: str) -> None:
    assert launch(name, "ask", call).stdout.split() == [wanted]


@pytest.mark.parametrize("name, wanted", [("default", "ok"), ("strict", "EPERM")])
def test_ptrace(launch: Launch, name: str, wanted: str) -> None:
    assert launch(name, "ask", "101,0,0,0,0").stdout.split() == [wanted]  # PTRACE_TRACEME


def test_unfiltered_the_same_calls_are_not_refused(tmp_path: Path) -> None:
    """Without a filter the answers differ, so it is the filter that the tests above see."""
    allow_everything = b"\x06\x00\x00\x00\x00\x00\xff\x7f"
    (tmp_path / "filter").write_bytes(allow_everything)
    command = [sys.executable, "-IS", str(LAUNCHER), str(tmp_path / "filter"), "ask"]
    done = subprocess.run(
        [*command, "165,0,0,0,0,0", f"272,{NEWUSER}", "435,0,0", "135,0x40000"],
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["EFAULT", "ok", "EINVAL", "ok"]


ORDINARY = {
    "ls": ["ls", "-laR", "/etc"],
    "shell": ["sh", "-c", "for i in 1 2 3; do echo $i | cat; done; test $(seq 100 | wc -l) = 100"],
    "bash": ["bash", "-c", "wait < <(sleep 0.01); printf %s $BASHPID"],
    "tar": [
        "sh",
        "-c",
        "d=$(mktemp -d) && cd $d && tar cf a.tar /etc/hostname 2>/dev/null && tar xf a.tar && rm -r $d",
    ],
    "python": [
        sys.executable,
        "-c",
        "import subprocess, threading, socket, tempfile, os, asyncio, ssl, multiprocessing.shared_memory\n"
        "t = threading.Thread(target=os.getpid); t.start(); t.join()\n"
        "subprocess.run(['true'], check=True)\n"
        "a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'\n"
        "s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname()).close()\n"
        "f = tempfile.NamedTemporaryFile(); os.chmod(f.name, 0o600); os.setxattr(f.name, 'user.a', b'1')\n"
        "asyncio.run(asyncio.sleep(0)); os.memfd_create('a'); os.pidfd_open(os.getpid())",
    ],
    "busybox": ["busybox", "sh", "-c", "busybox ps >/dev/null && busybox id && busybox date"],
    "apt": ["apt-get", "--simulate", "install", "hello"],
    "perl": ["perl", "-e", "fork or exit; wait; opendir D, '/'; print readdir D"],
    "su": ["su", "-s", "/bin/sh", "nobody", "-c", "id -u"],
    "git": ["sh", "-c", "d=$(mktemp -d) && cd $d && git init -q . && git status && rm -r $d"],
}


@pytest.mark.parametrize("name", ["default", "strict"])
@pytest.mark.parametrize("program", ORDINARY)
def test_ordinary_programs_work(launch: Launch, name: str, program: str) -> None:
    command = ORDINARY[program]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed here")
    free = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if free.returncode:
        pytest.skip(f"{program} fails here without a filter too: {free.stderr[-200:]}")
    done = launch(name, "run", *command)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["default", "strict"])
def test_loading_is_quick(launch: Launch, name: str) -> None:
    """The design gives all of policy 0.3 ms; ten times that still says that nothing is badly wrong."""
    times = [float(launch(name, "time").stdout) for _ in range(9)]
    assert statistics.median(times) < 3000

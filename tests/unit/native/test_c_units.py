"""The C units under address and undefined behaviour sanitizers, and the decoder under libFuzzer."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.native.raw import CONTAINER, EXEC, LOG, Op, Plan

ROOT = Path(__file__).resolve().parents[3]
NATIVE, C = ROOT / "phantom_cri/native", ROOT / "tests/c"
FLAGS = [
    "-std=gnu17",
    "-D_GNU_SOURCE",
    "-g",
    "-O1",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fno-omit-frame-pointer",
    "-fno-sanitize-recover=all",
]
FUZZ_SECONDS = 20


def build(target: Path, sanitizers: str, sources: list[Path]) -> Path:
    if shutil.which("clang") is None:
        pytest.skip("needs clang")
    command = ["clang", *FLAGS, f"-fsanitize={sanitizers}", "-o", str(target), *map(str, sources)]
    subprocess.run(command, check=True)
    return target


def run(program: Path, *arguments: str, seconds: int = 60) -> str:
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1"}
    done = subprocess.run(
        [str(program), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


@pytest.mark.parametrize(
    ("test", "units"),
    [
        ("test_plan", ["plan.c", "message.c"]),
        ("test_message", ["message.c"]),
        ("test_path", ["path.c"]),
        ("test_log", ["log.c", "text.c"]),
        ("test_attach", ["attach.c", "connection.c", "log.c", "loop.c", "message.c", "plan.c", "text.c"]),
        ("test_text", ["text.c", "exit_record.c", "cgroup.c"]),
    ],
)
def test_unit(tmp_path: Path, test: str, units: list[str]) -> None:
    sources = [C / f"{test}.c", *(NATIVE / unit for unit in units)]
    program = build(tmp_path / test, "address,undefined", sources)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    run(program, *([] if test in ("test_plan", "test_message", "test_attach") else [str(scratch)]))


def seeds() -> list[Plan]:
    """Plans as they are sent: a container, an exec, the fragment's own identity."""
    container: list[Op] = [
        ("JOIN_NS", 0, 0x20000),
        ("OPEN_TREE", 100, "/var/lib/x", 3),
        ("OPEN_TREE", 104, "/", 1),
        ("OVERLAY", 101, ["/l/1", "/l/2"], "/u", "/w", 0),
        ("JOIN_FRAGMENT", 0x20000),
        ("CGROUP_PROCS", 1),
        ("UNSHARE", 0x2020000),
        ("ROOT", 101),
        ("NEW_FS", 102, "proc", [], 14),
        ("ATTACH", 102, "/proc", 0, 0, 2),
        ("NEW_FS", 103, "tmpfs", ["mode=755", "size=64k"], 2),
        ("ATTACH", 103, "/dev", 0, 0, 2),
        ("ATTACH", 100, "/data", 1, 1 << 18, 3),
        ("MKDIR", "/dev/shm", 0o1777, 0, 0),
        ("MKNOD", "/dev/null", 0o20666, 1, 3, 0, 0),
        ("SYMLINK", "pts/ptmx", "/dev/ptmx"),
        ("MASK", "/proc/kcore"),
        ("READONLY", "/proc/sys"),
        ("REMOUNT", "/", 1, 0),
        ("HOST", 104, "/bundle"),
        ("HOOK", "/bin/hook", b"{}", ["hook", "x"], ["A=b"], 5),
        ("PIVOT",),
        ("RLIMIT", 7, 1024, 4096),
        ("EXEC_LABEL", "apparmor", "a profile"),
        ("UMASK", 0o22),
        ("NO_NEW_PRIVS",),
        ("BOUNDING", 0xA80425FB),
        ("SECCOMP", b"\x06\0\0\0\0\0\xff\x7f", 0),
        ("IDS", 1000, 1000, b"\x01\0\0\0\x02\0\0\0"),
        ("CAPABILITIES", 0, 0, 0, 0),
        ("CHDIR", "/"),
        ("EXEC", "sh", ["sh", "-c", "true"], ["PATH=/bin", "HOME=/root"]),
    ]
    executed: list[Op] = [("JOIN_PROCESS", "c1", 0x2020000), ("EXEC", "/bin/true", ["true"], [])]
    own: list[Op] = [
        ("HOSTNAME", "web-0"),
        ("SYSCTL", "net/ipv4/ip_forward", "1"),
        ("NETLINK", b"\x20\0\0\0\x10\0\x05\0" + bytes(24)),
        ("OOM_SCORE", -998),
    ]
    return [
        Plan(ops=container, kind=CONTAINER, flags=LOG, fds=[0, 0], log_slot=1, clone_flags=0x20000000),
        Plan(ops=executed, kind=EXEC, pid_namespace_of="c1"),
        Plan(ops=own, kind=0),
    ]


def test_fuzz_the_plan_decoder(tmp_path: Path) -> None:
    program = build(
        tmp_path / "fuzz",
        "address,undefined,fuzzer",
        [C / "fuzz_plan.c", NATIVE / "plan.c", NATIVE / "message.c"],
    )
    corpus, found = tmp_path / "corpus", tmp_path / "found"
    corpus.mkdir()
    found.mkdir()
    for number, plan in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(plan.encode())
    said = run(
        program,
        f"-max_total_time={FUZZ_SECONDS}",
        "-max_len=8192",
        f"-artifact_prefix={found}/",
        str(corpus),
        seconds=FUZZ_SECONDS + 60,
    )
    # The seeds reach what only a sound plan reaches; else the run proves nothing.
    assert len(list(corpus.iterdir())) > 20, said[-2000:]
    assert list(found.iterdir()) == []

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest

from phantom_cri.errors import InvalidArgument, NotFound
from phantom_cri.model import SecurityProfile
from phantom_cri.policy import Policy, PolicyBook, SeccompFilter
from tests.unit.policy.classic_bpf import I386, answer, run

POLICIES = Path(__file__).parents[3] / "policies"
x86_64_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="x86_64 system call numbers")
WRITE, MKDIR, SOCKET, READ, MSEAL = 1, 83, 41, 0, 462


@pytest.fixture(scope="module")
def policy() -> Policy:
    return PolicyBook.load(POLICIES).get("default")


def compiled(policy: Policy, path: Path, *capabilities: str) -> SeccompFilter:
    found = policy.seccomp(
        SecurityProfile(kind="localhost", localhost_ref=str(path)), frozenset(capabilities), False
    )
    assert found is not None
    return found


def profile(tmp_path: Path, **fields: Any) -> Path:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW"} | fields))
    return path


def rule(*names: str, action: str = "SCMP_ACT_ERRNO", **fields: Any) -> dict[str, Any]:
    return {"names": names, "action": action} | fields


@pytest.mark.parametrize("reference", ["", "profile.json", "../profile.json", "/a\0b"])
def test_reference_must_be_absolute(policy: Policy, reference: str) -> None:
    with pytest.raises(InvalidArgument, match="localhost_ref"):
        policy.seccomp(SecurityProfile(kind="localhost", localhost_ref=reference), frozenset(), False)


def test_missing_file(policy: Policy, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"localhost_ref .*nothing\.json"):
        compiled(policy, tmp_path / "nothing.json")


def test_not_a_file(policy: Policy, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="regular file"):
        compiled(policy, tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidArgument, match="regular file"):
        compiled(policy, tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InvalidArgument, match="loop"):
        compiled(policy, tmp_path / "loop")
    (tmp_path / "large").write_bytes(b" " * (1 << 20) + b"{}")
    with pytest.raises(InvalidArgument, match="larger"):
        compiled(policy, tmp_path / "large")


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "SCMP_ACT_NOTIFY"),
        ({"defaultAction": "allow"}, "defaultAction 'allow'"),
        ({"defaultAction": 5}, "defaultAction"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 70_000}, "70000"),
        ({"architectures": ["SCMP_ARCH_X87"]}, "SCMP_ARCH_X87"),
        ({"flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}, "NEW_LISTENER"),
        ({"listenerPath": "/run/x"}, "listenerPath"),
        ({"syscalls": [rule()]}, r"syscalls\[0\]: names must not be empty"),
        ({"syscalls": [rule("read", action="SCMP_ACT_X")]}, "SCMP_ACT_X"),
        ({"syscalls": [rule("read", errnoRet=-1)]}, "errno -1"),
        ({"syscalls": [rule("read", args=[{"index": 6, "op": "SCMP_CMP_EQ"}])]}, "index 6"),
        ({"syscalls": [rule("read", args=[{"index": 0, "op": "=="}])]}, "'=='"),
        ({"syscalls": [rule("read", args=[{"index": 0, "op": "SCMP_CMP_EQ", "value": -1}])]}, "-1"),
        ({"syscalls": [rule("read", includes={"caps": ["CAP_X"]})]}, "CAP_X"),
        ({"syscalls": [rule("read", includes={"minKernel": "x"})]}, "minKernel"),
        ({"syscalls": {"read": 1}}, "syscalls"),
    ],
)
def test_mistakes_are_named(policy: Policy, tmp_path: Path, fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"localhost_ref .*profile\.json.*{named}"):
        compiled(policy, profile(tmp_path, **fields))


def test_broken_json(policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text("{")
    with pytest.raises(InvalidArgument, match=r"profile\.json"):
        compiled(policy, tmp_path / "profile.json")


@x86_64_only
def test_actions_arguments_and_unknown_calls(policy: Policy, tmp_path: Path) -> None:
    path = profile(
        tmp_path,
        somethingNew=True,
        syscalls=[
            rule("mkdir", "from_the_future"),
            rule("write", errnoRet=13, args=[{"index": 0, "op": "SCMP_CMP_GT", "value": 2}]),
            rule("read", action="SCMP_ACT_KILL_PROCESS"),
            rule(
                "socket",
                args=[
                    {"index": 0, "op": "SCMP_CMP_EQ", "value": 40},
                    {"index": 0, "op": "SCMP_CMP_EQ", "value": 38},
                ],
            ),
        ],
    )
    bpf = compiled(policy, path).bpf
    assert answer(run(bpf, MKDIR)) == "EPERM"
    assert answer(run(bpf, WRITE, (2,))) == "allow"
    assert answer(run(bpf, WRITE, (3,))) == "EACCES"
    assert answer(run(bpf, READ)) == "0x80000000"
    assert [answer(run(bpf, SOCKET, (family,))) for family in (38, 40, 2)] == ["EPERM", "EPERM", "allow"]
    assert answer(run(bpf, 1000)) == "allow"


@x86_64_only
def test_default_errno_and_newer_calls(policy: Policy, tmp_path: Path) -> None:
    path = profile(
        tmp_path,
        defaultAction="SCMP_ACT_ERRNO",
        defaultErrnoRet=13,
        syscalls=[rule("read", "mseal", action="SCMP_ACT_ALLOW")],
    )
    bpf = compiled(policy, path).bpf
    assert [answer(run(bpf, number)) for number in (READ, WRITE, MSEAL, MSEAL + 1)] == [
        "allow",
        "EACCES",
        "allow",
        "ENOSYS",
    ]


@x86_64_only
def test_includes_and_excludes(policy: Policy, tmp_path: Path) -> None:
    allow = "SCMP_ACT_ALLOW"
    path = profile(
        tmp_path,
        defaultAction="SCMP_ACT_ERRNO",
        archMap=[{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        syscalls=[
            rule("read", action=allow, includes={"caps": ["CAP_SYS_ADMIN"]}),
            rule("write", action=allow, excludes={"caps": ["CAP_SYS_ADMIN"]}),
            rule("mkdir", action=allow, includes={"arches": ["amd64"], "minKernel": "4.8"}),
            rule("rmdir", action=allow, excludes={"arches": ["amd64"]}),
            rule("chdir", action=allow, includes={"minKernel": "999.0"}),
        ],
    )
    without = compiled(policy, path).bpf
    holding = compiled(policy, path, "SYS_ADMIN").bpf
    numbers = {"read": 0, "write": 1, "mkdir": 83, "rmdir": 84, "chdir": 80}

    def allowed(bpf: bytes) -> set[str]:
        return {name for name, number in numbers.items() if answer(run(bpf, number)) == "allow"}

    assert allowed(without) == {"write", "mkdir"}
    assert allowed(holding) == {"read", "mkdir"}
    assert answer(run(without, 39, arch=I386)) == "allow"  # mkdir of i386, by archMap


def test_a_changed_file_is_read_again(policy: Policy, tmp_path: Path) -> None:
    path = profile(tmp_path, syscalls=[rule("mkdir")])
    first = compiled(policy, path)
    assert compiled(policy, path) is first
    profile(tmp_path, syscalls=[rule("rmdir", "mkdir")])
    assert compiled(policy, path).bpf != first.bpf


def test_flags(policy: Policy, tmp_path: Path) -> None:
    path = profile(tmp_path, flags=["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])
    assert compiled(policy, path).flags == 6

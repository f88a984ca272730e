"""The filter with its prologue must answer as libseccomp alone would, wherever that knows the call."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phantom_cri.policy import libseccomp
from phantom_cri.policy.compiler import compile_filter
from phantom_cri.policy.document import read_policy
from phantom_cri.policy.profile import Comparison, Profile, Rule
from phantom_cri.policy.prologue import NEW_SYSCALLS
from tests.unit.policy.classic_bpf import I386, X86_64, answer, run

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="architectures are those of x86_64")

POLICIES = Path(__file__).parents[3] / "policies"
X32 = 0x40000000
KILL = "0x0"
ARGUMENTS = [(), (1,), (2,), (38,), (40,), (1 << 32 | 40,), (0x10000000,), (8,), (1 << 63, 7, 7)]


def by_libseccomp_alone(profile: Profile, capabilities: frozenset[str]) -> bytes:
    with libseccomp.Filter(profile.default_action) as draft:
        for name in profile.architectures:
            arch = libseccomp.architecture(name)
            assert arch is not None
            draft.add_architecture(arch)
        for rule in profile.rules:
            if not rule.applies(capabilities):
                continue
            comparisons = [
                libseccomp.Comparison(c.argument, libseccomp.COMPARE[c.op], c.first, c.second)
                for c in rule.comparisons
            ]
            for syscall in rule.syscalls:
                if libseccomp.is_known(syscall):
                    draft.add_rule(rule.action, syscall, comparisons)
        return draft.to_bytes()


def assert_same(profile: Profile, capabilities: frozenset[str]) -> None:
    ours, theirs = compile_filter(profile, capabilities), by_libseccomp_alone(profile, capabilities)
    for arch, offset in ((X86_64, 0), (X86_64, X32), (I386, 0), (0xC00000B7, 0)):
        for number in [*range(451), 512, 520, 547, 2000]:
            for args in ARGUMENTS:
                got = answer(run(ours, number + offset, args, arch))
                want = answer(run(theirs, number + offset, args, arch))
                beyond = number > 450 and got == "ENOSYS"
                newer = number in (335, *NEW_SYSCALLS.values())
                assert got == want or beyond or newer, (hex(arch), number, args, got, want)


@pytest.mark.parametrize("name", ["default", "strict"])
@pytest.mark.parametrize("capabilities", [frozenset(), frozenset({"SYS_ADMIN", "SYS_CHROOT", "SYS_NICE"})])
def test_shipped_policies(name: str, capabilities: frozenset[str]) -> None:
    assert_same(read_policy(POLICIES / f"{name}.yaml").profile, capabilities)


def test_the_default_filter_is_short() -> None:
    profile = read_policy(POLICIES / "default.yaml").profile
    assert len(compile_filter(profile, frozenset())) // 8 < 600


NAMES = st.sampled_from(
    [
        "read",
        "write",
        "socket",
        "socketcall",
        "connect",
        "accept",
        "shmget",
        "ipc",
        "clone",
        "chown",
        "chown32",
        "mmap2",
        "mkdir",
        "time",
    ]
)
RULES = st.builds(
    Rule,
    syscalls=st.lists(NAMES, min_size=1, max_size=4, unique=True).map(tuple),
    action=st.sampled_from([libseccomp.ALLOW, libseccomp.errno_action(13)]),
    comparisons=st.just(())
    | st.builds(Comparison, st.just(0), st.just("EQ"), st.just(2)).map(lambda c: (c,)),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(RULES, max_size=4), st.sampled_from([(), ("x86",), ("x86", "x32")]))
def test_any_profile(rules: list[Rule], architectures: tuple[str, ...]) -> None:
    """Rules that contradict each other are libseccomp's to decide, by the order in which they come."""
    said: dict[str, set[int]] = {}
    for rule in rules:
        for name in rule.syscalls:
            said.setdefault(name, set()).add(rule.action)
    if any(len(actions) > 1 for actions in said.values()):
        return
    profile = Profile("test", libseccomp.errno_action(1), architectures, tuple(rules))
    highest = max((libseccomp.number_on(X86_64, name) or 0 for name in said), default=0)
    ours, theirs = compile_filter(profile, frozenset()), by_libseccomp_alone(profile, frozenset())
    for arch in (X86_64, I386):
        for number in [*range(highest + 1), 359, 362, 102, 117, X32, X32 + 1, X32 + 41]:
            for args in ((), (1,), (2,), (3,), (23,)):
                got = answer(run(ours, number, args, arch))
                if got != "ENOSYS":
                    assert got == answer(run(theirs, number, args, arch)), (hex(arch), number, args)


def test_a_list_without_order_is_left_to_libseccomp() -> None:
    """Every other number allowed: more ranges than one block can hold."""
    by_number = {libseccomp.number_on(X86_64, name): name for name in known_names()}
    names = tuple(name for number, name in sorted(by_number.items()) if number is not None and number % 2)
    profile = Profile("test", libseccomp.errno_action(1), ("x32",), (Rule(names, libseccomp.ALLOW),))
    bpf = compile_filter(profile, frozenset())
    for number in range(330):
        assert (answer(run(bpf, number)) == "allow") == (by_number.get(number) in names)


def known_names() -> set[str]:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("linux-libc-dev is not installed")
    lines = header.read_text().splitlines()
    return {line.split()[1].removeprefix("__NR_") for line in lines if line.startswith("#define __NR_")}

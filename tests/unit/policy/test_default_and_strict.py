"""What the shipped policies answer, by an interpreter of our own. Numbers: x86_64 and i386 syscall tables."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from phantom_cri.model import Capabilities, ContainerSecurity, SecurityProfile
from phantom_cri.policy import Policy, PolicyBook, names_in, reference
from tests.unit.policy.classic_bpf import I386, answer, run

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="system call numbers are those of x86_64"
)

POLICIES = Path(__file__).parents[3] / "policies"
RUNTIME_DEFAULT = SecurityProfile()
X32 = 0x40000000

READ, CLONE, SOCKET, PTRACE, MOUNT, UNSHARE, PERSONALITY = 0, 56, 41, 101, 165, 272, 135
KEYCTL, IO_URING_SETUP, CLONE3, USERFAULTFD, OPEN_BY_HANDLE_AT, BPF, SETNS = 250, 425, 435, 323, 304, 321, 308
FCHMODAT2, MSEAL, FILE_SETATTR, URETPROBE, CHROOT, MKNOD = 452, 462, 469, 335, 161, 133
NEWUSER, THREAD = 0x10000000, 0x3D0F00


@pytest.fixture(scope="module")
def policies() -> PolicyBook:
    return PolicyBook.load(POLICIES)


def ask(
    policy: Policy,
    number: int,
    *args: int,
    capabilities: frozenset[str] | None = None,
    arch: int = 0xC000003E,
) -> str:
    held = policy.default_capabilities if capabilities is None else capabilities
    found = policy.seccomp(RUNTIME_DEFAULT, held, False)
    assert found is not None
    return answer(run(found.bpf, number, args, arch))


@pytest.mark.parametrize(
    "number, args, wanted",
    [
        (MOUNT, (), "EPERM"),
        (UNSHARE, (NEWUSER,), "EPERM"),
        (SETNS, (), "EPERM"),
        (CLONE, (NEWUSER | 17,), "EPERM"),
        (CLONE, (THREAD,), "allow"),
        (CLONE3, (), "ENOSYS"),
        (KEYCTL, (), "EPERM"),
        (IO_URING_SETUP, (), "EPERM"),
        (USERFAULTFD, (), "EPERM"),
        (BPF, (), "EPERM"),
        (OPEN_BY_HANDLE_AT, (), "EPERM"),
        (PERSONALITY, (0x40000,), "EPERM"),  # ADDR_NO_RANDOMIZE
        (PERSONALITY, (0xFFFFFFFF,), "allow"),
        (PERSONALITY, (0x20008,), "allow"),
        (SOCKET, (40,), "EPERM"),  # AF_VSOCK
        (SOCKET, (38,), "EPERM"),  # AF_ALG
        (SOCKET, (1 << 32 | 40,), "EPERM"),  # the kernel cuts the upper half off
        (SOCKET, (2,), "allow"),
        (SOCKET, (16,), "allow"),
        (SOCKET, (37,), "allow"),
        (SOCKET, (39,), "allow"),
        (SOCKET, (41,), "allow"),
        (SOCKET, (64,), "EPERM"),
        (PTRACE, (), "allow"),
        (CHROOT, (), "allow"),
        (MKNOD, (), "allow"),
        (READ, (), "allow"),
        (FCHMODAT2, (), "allow"),
        (MSEAL, (), "allow"),  # newer than libseccomp 2.5
        (FILE_SETATTR, (), "allow"),
        (URETPROBE, (), "allow"),
        (500, (), "ENOSYS"),  # newer than everything
        (100_000, (), "ENOSYS"),
    ],
)
def test_default(policies: PolicyBook, number: int, args: tuple[int, ...], wanted: str) -> None:
    assert ask(policies.get("default"), number, *args) == wanted


@pytest.mark.parametrize(
    "number, capability",
    [
        (MOUNT, "SYS_ADMIN"),
        (UNSHARE, "SYS_ADMIN"),
        (CLONE3, "SYS_ADMIN"),
        (BPF, "BPF"),
        (OPEN_BY_HANDLE_AT, "DAC_READ_SEARCH"),
    ],
)
def test_capabilities_unlock(policies: PolicyBook, number: int, capability: str) -> None:
    assert ask(policies.get("default"), number, capabilities=frozenset()) in ("EPERM", "ENOSYS")
    assert ask(policies.get("default"), number, capabilities=frozenset({capability})) == "allow"


def test_sys_admin_may_clone_with_namespaces(policies: PolicyBook) -> None:
    assert ask(policies.get("default"), CLONE, NEWUSER, capabilities=frozenset({"SYS_ADMIN"})) == "allow"


def test_chroot_needs_its_capability(policies: PolicyBook) -> None:
    assert ask(policies.get("default"), CHROOT, capabilities=frozenset()) == "EPERM"


def test_32_bit_programs(policies: PolicyBook) -> None:
    default = policies.get("default")
    assert ask(default, 3, arch=I386) == "allow"  # read
    assert ask(default, 21, arch=I386) == "EPERM"  # mount
    assert ask(default, 102, arch=I386) == "allow"  # socketcall
    assert ask(default, 462, arch=I386) == "allow"  # mseal: one numbering for all
    assert ask(default, 500, arch=I386) == "ENOSYS"
    assert ask(default, X32 | 1) == "allow"  # write
    assert ask(default, X32 | 165) == "EPERM"  # mount
    assert ask(policies.get("strict"), 3, arch=I386) == "0x0"  # killed: no second kernel interface
    assert ask(policies.get("strict"), X32 | 1) == "0x0"


@pytest.mark.parametrize(
    "number, args",
    [
        (PTRACE, ()),
        (MOUNT, ()),
        (UNSHARE, (NEWUSER,)),
        (CLONE, (NEWUSER,)),
        (KEYCTL, ()),
        (BPF, ()),
        (MKNOD, ()),
        (CHROOT, ()),
        (SOCKET, (17,)),
        (SOCKET, (40,)),
        (298, ()),  # perf_event_open
    ],
)
def test_strict_refuses_whatever_is_held(policies: PolicyBook, number: int, args: tuple[int, ...]) -> None:
    everything = names_in((1 << 41) - 1)
    assert ask(policies.get("strict"), number, *args, capabilities=everything) == "EPERM"


def test_strict_lets_ordinary_programs_run(policies: PolicyBook) -> None:
    strict = policies.get("strict")
    assert [ask(strict, READ), ask(strict, CLONE, THREAD), ask(strict, SOCKET, 2)] == ["allow"] * 3
    assert ask(strict, CLONE3) == "ENOSYS"


def test_strict_is_within_default(policies: PolicyBook) -> None:
    """Whatever strict lets through for some arguments, default does too."""
    for number in range(480):
        for args in ((), (2,), (40,), (NEWUSER,), (THREAD,)):
            if ask(policies.get("strict"), number, *args) == "allow":
                assert ask(policies.get("default"), number, *args) == "allow", number


def test_no_profile_unconfined_and_privileged_have_no_filter(policies: PolicyBook) -> None:
    default = policies.get("default")
    assert default.seccomp(None, frozenset(), False) is None
    assert default.seccomp(SecurityProfile(kind="unconfined"), frozenset(), False) is None
    assert default.seccomp(RUNTIME_DEFAULT, frozenset(), True) is None


def test_filters_are_compiled_once(policies: PolicyBook) -> None:
    default = policies.get("default")
    first = default.seccomp(RUNTIME_DEFAULT, frozenset({"SYS_TIME"}), False)
    # CHOWN makes no difference to any rule.
    assert default.seccomp(RUNTIME_DEFAULT, frozenset({"SYS_TIME", "CHOWN"}), False) is first
    assert default.seccomp(RUNTIME_DEFAULT, frozenset(), False) is not first


def test_a_compiled_policy_is_identified_by_its_hash(policies: PolicyBook) -> None:
    default = policies.get("default")
    plain = ContainerSecurity(seccomp=RUNTIME_DEFAULT, masked_paths=("/proc/kcore",))
    again = PolicyBook.load(POLICIES).get("default")
    assert reference(default.compile(plain)) == reference(again.compile(plain))
    assert default.digest == again.digest != policies.get("strict").digest
    others = [
        ContainerSecurity(seccomp=RUNTIME_DEFAULT),
        ContainerSecurity(masked_paths=("/proc/kcore",)),
        ContainerSecurity(seccomp=RUNTIME_DEFAULT, masked_paths=("/proc/kcore",), no_new_privs=True),
        ContainerSecurity(
            seccomp=RUNTIME_DEFAULT,
            masked_paths=("/proc/kcore",),
            capabilities=Capabilities(drop=("KILL",)),
        ),
    ]
    hashes = {reference(default.compile(security)).hash for security in (plain, *others)}
    hashes.add(reference(policies.get("strict").compile(plain)).hash)
    assert len(hashes) == 6


@pytest.mark.parametrize("name", ["default", "strict"])
def test_privileged_has_no_paths(policies: PolicyBook, name: str) -> None:
    security = ContainerSecurity(privileged=True, masked_paths=("/a",), readonly_paths=("/b",))
    compiled = policies.get(name).compile(security)
    assert (compiled.masked_paths, compiled.readonly_paths, compiled.seccomp) == ((), (), b"")


PATHS = [
    ((), ()),
    (("/proc/kcore", "/mine"), ("/proc/sys", "/mine", "/o")),
    (("/mine",), ()),
    ((), ("/o",)),
]


@pytest.mark.parametrize(("masked", "readonly"), PATHS)
def test_strict_adds_the_paths_of_a_request_to_its_own(
    policies: PolicyBook, masked: tuple[str, ...], readonly: tuple[str, ...]
) -> None:
    strict = policies.get("strict")
    compiled = strict.compile(ContainerSecurity(masked_paths=masked, readonly_paths=readonly))
    assert set(compiled.masked_paths) == {*strict.masked_paths, *masked}
    # What is masked needs no more.
    assert set(compiled.readonly_paths) == {*strict.readonly_paths, *readonly} - set(compiled.masked_paths)
    for paths in (compiled.masked_paths, compiled.readonly_paths):
        assert len(set(paths)) == len(paths)


@pytest.mark.parametrize(("masked", "readonly"), PATHS)
def test_default_lets_a_request_replace_its_paths(
    policies: PolicyBook, masked: tuple[str, ...], readonly: tuple[str, ...]
) -> None:
    asked = ContainerSecurity(masked_paths=masked, readonly_paths=readonly)
    compiled = policies.get("default").compile(asked)
    assert (compiled.masked_paths, compiled.readonly_paths) == (masked, readonly)


def test_strict_forbids_new_privileges(policies: PolicyBook) -> None:
    assert policies.get("strict").compile(ContainerSecurity()).no_new_privs
    assert not policies.get("default").compile(ContainerSecurity()).no_new_privs

"""Compiles a profile, for a set of capabilities, to the bytes for seccomp(2)."""

from __future__ import annotations

from phantom_cri.errors import InvalidArgument
from phantom_cri.policy import libseccomp
from phantom_cri.policy.profile import Comparison, Profile, Rule
from phantom_cri.policy.prologue import AUDIT_X86_64, Answers, fits, number_of, prepend

_LONGEST = 4096  # BPF_MAXINSNS
_INSTRUCTION = 8
_LETS_THROUGH = (libseccomp.ALLOW, libseccomp.LOG)
_X32 = libseccomp.architecture("x32")
_X86 = libseccomp.architecture("x86")

# Calls that 32-bit x86, s390 and others have through socketcall(2) or ipc(2), and since 4.3 or 5.1 also
# directly. libseccomp adds both to a rule but reports only the first, so the direct numbers of i386 are
# listed here (arch/x86/entry/syscalls/syscall_32.tbl); 0: none.
_SOCKET_CALLS = {
    "accept": 0,
    "accept4": 364,
    "bind": 361,
    "connect": 362,
    "getpeername": 368,
    "getsockname": 367,
    "getsockopt": 365,
    "listen": 363,
    "recv": 0,
    "recvfrom": 371,
    "recvmmsg": 337,
    "recvmsg": 372,
    "send": 0,
    "sendmmsg": 345,
    "sendmsg": 370,
    "sendto": 369,
    "setsockopt": 366,
    "shutdown": 373,
    "socket": 359,
    "socketpair": 360,
}
_IPC_CALLS = {
    "msgctl": 402,
    "msgget": 399,
    "msgrcv": 401,
    "msgsnd": 400,
    "semctl": 394,
    "semget": 393,
    "semop": 0,
    "semtimedop": 0,
    "shmat": 397,
    "shmctl": 396,
    "shmdt": 398,
    "shmget": 395,
}


def compile_filter(profile: Profile, capabilities: frozenset[str]) -> bytes:
    """`struct sock_filter` records for this machine. Raises InvalidArgument naming the profile."""
    rules = [rule for rule in profile.rules if rule.applies(capabilities)]
    architectures = [libseccomp.native_architecture()]
    for name in profile.architectures:
        arch = libseccomp.architecture(name)
        if arch is None:
            raise InvalidArgument(f"{profile.source}: architecture {name!r} is unknown")
        architectures.append(arch)
    architectures = list(dict.fromkeys(architectures))
    plain = _plain(rules)
    answers = _answers(profile, plain, architectures)
    if not all(map(fits, answers)):
        plain = frozenset(name for name in plain if not libseccomp.is_known(name))
        answers = _answers(profile, plain, architectures)
    try:
        program = prepend(
            answers, _body(profile, rules, plain - _behind_one_call(plain, architectures), architectures)
        )
    except OSError as error:
        raise InvalidArgument(f"{profile.source}: {error.strerror}") from error
    if len(program) > _LONGEST * _INSTRUCTION:
        length = len(program) // _INSTRUCTION
        raise InvalidArgument(f"{profile.source}: {length} instructions, more than the kernel's {_LONGEST}")
    return program


def _plain(rules: list[Rule]) -> frozenset[str]:
    """Calls that are allowed with any arguments, and have no other rule."""
    allowed = {name for rule in rules if _is_plain(rule) for name in rule.syscalls}
    otherwise = {name for rule in rules if rule.action != libseccomp.ALLOW for name in rule.syscalls}
    return frozenset(allowed - otherwise)


def _is_plain(rule: Rule) -> bool:
    return rule.action == libseccomp.ALLOW and not rule.comparisons


def _behind_one_call(plain: frozenset[str], architectures: list[int]) -> frozenset[str]:
    """Plain calls that libseccomp's part needs too, as they are also reachable through a multiplexer."""
    kept: set[str] = set()
    for way, calls in (("socketcall", _SOCKET_CALLS), ("ipc", _IPC_CALLS)):
        for name in plain.intersection(calls):
            if way not in plain or any(_number(name, arch) is None for arch in architectures):
                kept.add(name)
    return frozenset(kept)


def _body(profile: Profile, rules: list[Rule], answered: frozenset[str], architectures: list[int]) -> bytes:
    """libseccomp's part: all calls that the prologue does not decide. Raises OSError."""
    with libseccomp.Filter(profile.default_action) as draft:
        for arch in architectures:
            draft.add_architecture(arch)
        for rule in rules:
            for syscall in rule.syscalls:
                if syscall not in answered and libseccomp.is_known(syscall):
                    for comparisons in _alternatives(rule):
                        draft.add_rule(rule.action, syscall, comparisons)
        return draft.to_bytes()


def _alternatives(rule: Rule) -> list[list[libseccomp.Comparison]]:
    """libseccomp accepts one comparison per argument. Several for one are alternatives, as in runc."""
    comparisons = [_native(comparison) for comparison in rule.comparisons]
    if len({comparison.argument for comparison in comparisons}) < len(comparisons):
        return [[comparison] for comparison in comparisons]
    return [comparisons]


def _native(comparison: Comparison) -> libseccomp.Comparison:
    op = libseccomp.COMPARE[comparison.op]
    return libseccomp.Comparison(comparison.argument, op, comparison.first, comparison.second)


def _answers(profile: Profile, plain: frozenset[str], architectures: list[int]) -> list[Answers]:
    """x32 is not a kernel architecture: its calls are those of x86_64 with a bit set."""
    answers = []
    for arch in architectures:
        if arch == _X32:
            continue
        numbers = {_number(name, arch) for name in plain}
        if arch == AUDIT_X86_64 and _X32 in architectures:
            numbers |= {libseccomp.number_on(_X32, name) for name in plain}
        allowed = frozenset(number for number in numbers if number is not None)
        answers.append(Answers(arch, allowed, _highest(profile, arch)))
    return answers


def _number(name: str, arch: int) -> int | None:
    known = libseccomp.number_on(arch, name)
    if known is None and arch == _X86:
        known = _SOCKET_CALLS.get(name) or _IPC_CALLS.get(name)
    return number_of(name, arch) if known is None else known


def _highest(profile: Profile, arch: int) -> int | None:
    """Includes rules that are not applied: a call known to the profile is refused, not reported missing."""
    if profile.default_action in _LETS_THROUGH:
        return None
    names = {name for rule in profile.rules for name in rule.syscalls}
    return max((_number(name, arch) or 0 for name in names), default=0) or None

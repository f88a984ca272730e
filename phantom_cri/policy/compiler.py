"""A profile and a set of capabilities → the bytes for seccomp(2)."""

from __future__ import annotations

from phantom_cri.errors import InvalidArgument
from phantom_cri.policy import libseccomp
from phantom_cri.policy.profile import Comparison, Profile, Rule
from phantom_cri.policy.prologue import NewCalls, number_of, prepend

_LONGEST = 4096  # BPF_MAXINSNS
_INSTRUCTION = 8
_LETS_THROUGH = (libseccomp.ALLOW, libseccomp.LOG)


def compile_filter(profile: Profile, capabilities: frozenset[str]) -> bytes:
    """`struct sock_filter` records for this machine. Raises InvalidArgument naming the profile."""
    rules = [rule for rule in profile.rules if rule.applies(capabilities)]
    architectures = [libseccomp.native_architecture()]
    try:
        with libseccomp.Filter(profile.default_action) as draft:
            for name in profile.architectures:
                arch = libseccomp.architecture(name)
                if arch is None:
                    raise InvalidArgument(f"{profile.source}: architecture {name!r} is unknown")
                draft.add_architecture(arch)
                architectures.append(arch)
            for rule in rules:
                _add(draft, rule)
            body = draft.to_bytes()
    except OSError as error:
        raise InvalidArgument(f"{profile.source}: {error.strerror}") from error
    program = prepend([_new_calls(profile, rules, arch) for arch in dict.fromkeys(architectures)], body)
    if len(program) > _LONGEST * _INSTRUCTION:
        length = len(program) // _INSTRUCTION
        raise InvalidArgument(f"{profile.source}: {length} instructions, more than the kernel's {_LONGEST}")
    return program


def _add(draft: libseccomp.Filter, rule: Rule) -> None:
    comparisons = [_native(comparison) for comparison in rule.comparisons]
    # libseccomp takes one comparison an argument. Several for one are alternatives then, as runc reads them.
    alternatives = [comparisons]
    if len({comparison.argument for comparison in comparisons}) < len(comparisons):
        alternatives = [[comparison] for comparison in comparisons]
    for syscall in rule.syscalls:
        if libseccomp.is_known(syscall):
            for alternative in alternatives:
                draft.add_rule(rule.action, syscall, alternative)


def _native(comparison: Comparison) -> libseccomp.Comparison:
    op = libseccomp.COMPARE[comparison.op]
    return libseccomp.Comparison(comparison.argument, op, comparison.first, comparison.second)


def _new_calls(profile: Profile, rules: list[Rule], arch: int) -> NewCalls:
    """Of one architecture: what libseccomp could not take in, and the highest number thought of."""
    allowed: set[int] = set()
    refused: set[int] = set()
    for rule in rules:
        for name in rule.syscalls:
            number = None if libseccomp.is_known(name) else number_of(name, arch)
            if number is not None:
                plain = rule.action == libseccomp.ALLOW and not rule.comparisons
                (allowed if plain else refused).add(number)
    return NewCalls(arch, frozenset(allowed - refused), _highest(profile, arch))


def _highest(profile: Profile, arch: int) -> int | None:
    """Over all rules, applied or not: a call that was thought of and not given is refused, not missing."""
    if profile.default_action in _LETS_THROUGH:
        return None
    names = {name for rule in profile.rules for name in rule.syscalls}
    numbers = [libseccomp.number_on(arch, name) or number_of(name, arch) or 0 for name in names]
    return max(numbers, default=0) or None

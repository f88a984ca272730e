"""`policies/*.yaml`: read strictly, so that a mistyped key or system call is an error, not a gap."""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from phantom_cri.codec import DecodeError, Record, from_yaml, replace, to_json
from phantom_cri.errors import ConfigError
from phantom_cri.policy import libseccomp
from phantom_cri.policy.capabilities import normalise
from phantom_cri.policy.profile import MACHINE, Comparison, Profile, Rule, version
from phantom_cri.policy.prologue import ELSEWHERE, NEW_ON_X86_64, NEW_SYSCALLS

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_LOW_32_BITS = 0xFFFFFFFF
_LAST_ARGUMENT = 5


class Where(Record, frozen=True):
    """A test of one argument: `mask` and `equals`, or `int_in`, which compares the low 32 bits only."""

    arg: int
    mask: int | None = None
    equals: int | None = None
    int_in: tuple[int | str, ...] = ()


class Group(Record, frozen=True):
    """System calls that are allowed, or denied with their own errno, for one reason."""

    why: str
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    errno: str = ""
    where: Where | None = None
    with_capability: str = ""
    without_capability: str = ""
    machines: tuple[str, ...] = ()
    not_machines: tuple[str, ...] = ()
    min_kernel: str = ""


class Withdrawal(Record, frozen=True):
    why: str
    syscalls: tuple[str, ...]


class SeccompDocument(Record, frozen=True):
    groups: tuple[Group, ...]
    default_errno: str = "EPERM"
    sub_architectures: dict[str, tuple[str, ...]] = {}
    withdraw: tuple[Withdrawal, ...] = ()


Unmask = Literal["allowed", "never"]


class PolicyDocument(Record, frozen=True):
    """`unmask`: whether the paths in a request replace the policy's (procMount: Unmasked has none)."""

    name: str
    seccomp: SeccompDocument
    capabilities: tuple[str, ...]
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]
    extends: str = ""
    no_new_privs: bool = False
    unmask: Unmask = "never"


class PolicySource(Record, frozen=True):
    """A policy with the rules of the one it extends, and all names checked."""

    name: str
    profile: Profile
    capabilities: frozenset[str]
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]
    no_new_privs: bool
    unmask: Unmask

    @property
    def digest(self) -> str:
        """Of the content; stable across processes and nodes: equal digests mean equal policies."""
        said = (
            self.name,
            self.profile.digest,
            sorted(self.capabilities),
            self.masked_paths,
            self.readonly_paths,
            self.no_new_privs,
            self.unmask,
        )
        return hashlib.sha256(to_json(said)).hexdigest()


def read_policy(path: Path) -> PolicySource:
    """Raises ConfigError naming the file, the key and the value."""
    document = _read(path)
    source = str(path)
    rules = _rules(source, document.seccomp)
    if document.extends:
        rules = _inherited(path, document) + rules
    elif document.seccomp.withdraw:
        raise ConfigError(f"{source}: seccomp.withdraw: needs extends")
    architectures = document.seccomp.sub_architectures
    for name in (*architectures, *(sub for subs in architectures.values() for sub in subs)):
        if libseccomp.architecture(name) is None:
            raise ConfigError(f"{source}: seccomp.sub_architectures {name!r}: unknown architecture")
    profile = Profile(
        source=source,
        default_action=libseccomp.errno_action(
            _errno(source, "seccomp.default_errno", document.seccomp.default_errno)
        ),
        architectures=architectures.get(MACHINE, ()),
        rules=tuple(rules),
    )
    return PolicySource(
        name=document.name,
        profile=profile,
        capabilities=frozenset(_capability(source, "capabilities", name) for name in document.capabilities),
        masked_paths=_paths(source, "masked_paths", document.masked_paths),
        readonly_paths=_paths(source, "readonly_paths", document.readonly_paths),
        no_new_privs=document.no_new_privs,
        unmask=document.unmask,
    )


def _read(path: Path) -> PolicyDocument:
    try:
        document = from_yaml(path.read_bytes(), PolicyDocument)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    if document.name != path.stem or not _NAME.fullmatch(document.name):
        raise ConfigError(f"{path}: name {document.name!r}: want the file's name")
    return document


def _inherited(path: Path, document: PolicyDocument) -> list[Rule]:
    """The rules of the extended policy without the withdrawn ones. Only one level, to stay readable."""
    if not _NAME.fullmatch(document.extends):
        raise ConfigError(
            f"{path}: extends {document.extends!r}: want the name of a policy in the same folder"
        )
    base = _read(path.with_name(f"{document.extends}.yaml"))
    if base.extends:
        raise ConfigError(f"{path}: extends {document.extends!r}, which itself extends {base.extends!r}")
    rules = _rules(str(path), base.seccomp)
    named = {name for rule in rules for name in rule.syscalls}
    gone: set[str] = set()
    for withdrawal in document.seccomp.withdraw:
        for name in withdrawal.syscalls:
            if name not in named:
                raise ConfigError(f"{path}: seccomp.withdraw {name!r}: {base.name!r} does not name it")
            gone.add(name)
    kept = ((rule, tuple(name for name in rule.syscalls if name not in gone)) for rule in rules)
    return [replace(rule, syscalls=names) for rule, names in kept if names]


def _rules(source: str, document: SeccompDocument) -> list[Rule]:
    return [rule for index, group in enumerate(document.groups) for rule in _group(source, index, group)]


def _group(source: str, index: int, group: Group) -> Iterator[Rule]:
    where = f"{source}: seccomp.groups[{index}]"
    if not group.why.strip():
        raise ConfigError(f"{where}.why: must not be empty")
    if bool(group.allow) == bool(group.deny) or bool(group.deny) != bool(group.errno):
        raise ConfigError(f"{where}: want either allow, or deny with errno")
    for name in group.allow + group.deny:
        if not (
            libseccomp.is_known(name) or name in NEW_SYSCALLS or name in NEW_ON_X86_64 or name in ELSEWHERE
        ):
            raise ConfigError(f"{where}: {name!r}: no such system call")
    for machine in group.machines + group.not_machines:
        if libseccomp.architecture(machine) is None:
            raise ConfigError(f"{where}: {machine!r}: unknown architecture")
    if group.min_kernel:
        try:
            version(group.min_kernel)
        except ValueError as error:
            raise ConfigError(f"{where}.min_kernel: {error}") from error
    action = libseccomp.ALLOW
    if group.deny:
        action = libseccomp.errno_action(_errno(source, f"seccomp.groups[{index}].errno", group.errno))
    for comparisons in _alternatives(where, group.where):
        yield Rule(
            syscalls=group.allow + group.deny,
            action=action,
            comparisons=comparisons,
            with_capabilities=_one(source, "with_capability", group.with_capability),
            without_capabilities=_one(source, "without_capability", group.without_capability),
            machines=group.machines,
            not_machines=group.not_machines,
            min_kernel=group.min_kernel,
        )


def _alternatives(place: str, where: Where | None) -> Iterator[tuple[Comparison, ...]]:
    """Each becomes a rule; all comparisons of a rule have to match."""
    if where is None:
        yield ()
        return
    if not 0 <= where.arg <= _LAST_ARGUMENT:
        raise ConfigError(f"{place}.where.arg {where.arg}: want 0 to {_LAST_ARGUMENT}")
    if bool(where.int_in) == (where.mask is not None) or (where.mask is None) != (where.equals is None):
        raise ConfigError(f"{place}.where: want either int_in, or mask and equals")
    if where.mask is not None and where.equals is not None:
        yield (Comparison(where.arg, "MASKED_EQ", where.mask, where.equals),)
    for item in where.int_in:
        for first, mask in aligned_blocks(*_range(place, item)):
            yield (Comparison(where.arg, "MASKED_EQ", mask, first),)


def _range(place: str, item: int | str) -> tuple[int, int]:
    first, dash, last = str(item).partition("-")
    try:
        low = int(first, 0)
        high = int(last, 0) if dash else low
    except ValueError:
        raise ConfigError(f"{place}.where.int_in {item!r}: want a number or a range as 0-37") from None
    if not 0 <= low <= high <= _LOW_32_BITS:
        raise ConfigError(f"{place}.where.int_in {item!r}: want 0 to {_LOW_32_BITS}, the lower first")
    return low, high


def aligned_blocks(low: int, high: int) -> Iterator[tuple[int, int]]:
    """The range as (value, mask) pairs for masked comparisons of 32 bits: powers of two, aligned."""
    while low <= high:
        size = low & -low or 1 << 32
        while size > high - low + 1:
            size >>= 1
        yield low, _LOW_32_BITS & ~(size - 1)
        low += size


def _errno(source: str, key: str, name: str) -> int:
    number = getattr(errno, name, None) if name.startswith("E") and name.isupper() else None
    if not isinstance(number, int):
        raise ConfigError(f"{source}: {key} {name!r}: want an errno by name, e.g. EPERM")
    return number


def _one(source: str, key: str, name: str) -> tuple[str, ...]:
    return (_capability(source, key, name),) if name else ()


def _capability(source: str, key: str, name: str) -> str:
    try:
        return normalise(name)
    except KeyError:
        raise ConfigError(f"{source}: {key} {name!r}: no such capability") from None


def _paths(source: str, key: str, paths: tuple[str, ...]) -> tuple[str, ...]:
    for path in paths:
        if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise ConfigError(f"{source}: {key} {path!r}: want an absolute path without '..'")
    return paths

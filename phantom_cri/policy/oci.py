"""Localhost profiles: JSON files as in the OCI runtime spec, or with Docker's extensions.

OCI: defaultAction, defaultErrnoRet, architectures, flags, syscalls[names, action, errnoRet, args]. Docker:
archMap, and includes and excludes (caps, arches, minKernel) on each rule. Unknown fields are ignored, as in
other runtimes; unknown actions, operators and flags are errors; unknown system calls are skipped, since
profiles may be written for newer kernels.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from phantom_cri.codec import DecodeError, Document, Record, from_json
from phantom_cri.errors import InvalidArgument, NotFound, kernel_error
from phantom_cri.policy import libseccomp
from phantom_cri.policy.capabilities import is_capability, normalise
from phantom_cri.policy.profile import MACHINE, Comparison, Profile, Rule, version

_FIELD = "security.seccomp.localhost_ref"
_LARGEST = 1 << 20
_MOST_ARGUMENTS = 6
_LARGEST_VALUE = (1 << 64) - 1

_ACTIONS = {
    "SCMP_ACT_ALLOW": libseccomp.ALLOW,
    "SCMP_ACT_KILL": libseccomp.KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": libseccomp.KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": libseccomp.KILL_PROCESS,
    "SCMP_ACT_TRAP": libseccomp.TRAP,
    "SCMP_ACT_LOG": libseccomp.LOG,
}
# include/uapi/linux/seccomp.h. TSYNC has no effect: the process has one thread when the filter is loaded.
_FLAGS = {"SECCOMP_FILTER_FLAG_TSYNC": 0, "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4}
# From Go's names, as in includes.arches, to the kernel's.
_MACHINES = {
    "amd64": "x86_64",
    "arm64": "aarch64",
    "x86": "i686",
    "386": "i686",
    "arm": "armv7l",
    "x32": "x32",
}


class _Argument(Document, frozen=True, rename="camel"):
    index: int
    op: str
    value: int = 0
    value_two: int = 0


class _Condition(Document, frozen=True, rename="camel"):
    caps: tuple[str, ...] | None = None
    arches: tuple[str, ...] | None = None
    min_kernel: str = ""


class _Syscall(Document, frozen=True, rename="camel"):
    action: str
    names: tuple[str, ...] | None = None
    name: str = ""
    errno_ret: int | None = None
    args: tuple[_Argument, ...] | None = None
    includes: _Condition | None = None
    excludes: _Condition | None = None


class _ArchMap(Document, frozen=True, rename="camel"):
    architecture: str
    sub_architectures: tuple[str, ...] | None = None


class SeccompDocument(Document, frozen=True, rename="camel"):
    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] | None = None
    arch_map: tuple[_ArchMap, ...] | None = None
    flags: tuple[str, ...] | None = None
    listener_path: str = ""
    syscalls: tuple[_Syscall, ...] | None = None


class Version(Record, frozen=True):
    """Identifies one version of a file under its path."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def file_version(path: str) -> Version:
    """Raises InvalidArgument for a relative path, NotFound."""
    if not path.startswith("/") or "\0" in path:
        raise InvalidArgument(f"{_FIELD} {path!r}: want an absolute path")
    try:
        found = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    return Version(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def read_profile(path: str) -> Profile:
    """Raises NotFound, InvalidArgument naming the field, the file and the mistake."""
    source = f"{_FIELD} {path!r}"
    try:
        document = from_json(_content(path), SeccompDocument)
    except DecodeError as error:
        raise InvalidArgument(f"{source}: {error}") from error
    return profile_of(source, document)


def profile_of(source: str, document: SeccompDocument) -> Profile:
    """`source`: what errors name. Raises InvalidArgument naming what is wrong in it."""
    if document.listener_path:
        raise InvalidArgument(f"{source}: listenerPath {document.listener_path!r}: not supported")
    default = document.default_errno_ret
    rules = [
        rule
        for index, syscall in enumerate(document.syscalls or ())
        for rule in _rules(f"{source}: syscalls[{index}]", syscall, default)
    ]
    return Profile(
        source=source,
        default_action=_action(f"{source}: defaultAction", document.default_action, default),
        architectures=tuple(_architectures(source, document)),
        rules=tuple(rules),
        flags=_flags(source, document.flags or ()),
    )


def _content(path: str) -> bytes:
    try:
        # Without O_NONBLOCK opening a FIFO would block the daemon.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidArgument(f"{_FIELD} {path!r}: not a regular file")
        content = b""
        while len(content) <= _LARGEST and (more := os.read(fd, _LARGEST + 1)):
            content += more
    finally:
        os.close(fd)
    if len(content) > _LARGEST:
        raise InvalidArgument(f"{_FIELD} {path!r}: larger than {_LARGEST} bytes")
    return content


def _unreadable(path: str, error: OSError) -> Exception:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(f"{_FIELD} {path!r}: no such file")
    if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
        return InvalidArgument(f"{_FIELD} {path!r}: {error.strerror}")
    return kernel_error(f"{_FIELD} {path!r}: open", error.errno or 0)


def _architectures(source: str, document: SeccompDocument) -> Iterator[str]:
    native = libseccomp.native_architecture()
    for name in document.architectures or ():
        yield _architecture(source, name)
    for entry in document.arch_map or ():
        if libseccomp.architecture(_architecture(source, entry.architecture)) == native:
            for name in entry.sub_architectures or ():
                yield _architecture(source, name)


def _architecture(source: str, name: str) -> str:
    plain = name.removeprefix("SCMP_ARCH_").lower()
    if plain == "native":
        return MACHINE
    if not name.startswith("SCMP_ARCH_") or libseccomp.architecture(plain) is None:
        raise InvalidArgument(f"{source}: architecture {name!r} is unknown")
    return plain


def _flags(source: str, names: tuple[str, ...]) -> int:
    flags = 0
    for name in names:
        if name not in _FLAGS:
            raise InvalidArgument(f"{source}: flags {name!r}: want one of {', '.join(_FLAGS)}")
        flags |= _FLAGS[name]
    return flags


def _rules(place: str, syscall: _Syscall, default_errno: int | None) -> Iterator[Rule]:
    names = tuple(syscall.names or ()) or ((syscall.name,) if syscall.name else ())
    if not names:
        raise InvalidArgument(f"{place}: names must not be empty")
    for name in names:
        if "\0" in name:
            raise InvalidArgument(f"{place}: names {name!r}")
    includes, excludes = syscall.includes or _Condition(), syscall.excludes or _Condition()
    if excludes.min_kernel:
        raise InvalidArgument(f"{place}: excludes.minKernel: only includes may have it")
    if includes.min_kernel:
        try:
            version(includes.min_kernel)
        except ValueError as error:
            raise InvalidArgument(f"{place}: includes.minKernel: {error}") from error
    errno_ret = syscall.errno_ret if syscall.errno_ret is not None else default_errno
    yield Rule(
        syscalls=names,
        action=_action(f"{place}: action", syscall.action, errno_ret),
        comparisons=tuple(_comparison(place, argument) for argument in syscall.args or ()),
        with_capabilities=_capabilities(place, includes),
        without_capabilities=_capabilities(place, excludes),
        machines=tuple(_MACHINES.get(arch, arch) for arch in includes.arches or ()),
        not_machines=tuple(_MACHINES.get(arch, arch) for arch in excludes.arches or ()),
        min_kernel=includes.min_kernel,
    )


def _action(place: str, name: str, number: int | None) -> int:
    """`number`: for ERRNO and TRACE; default EPERM (OCI runtime spec)."""
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        number = errno.EPERM if number is None else number
        if not 0 <= number < 1 << 16:
            raise InvalidArgument(f"{place}: errno {number}: want 0 to 65535")
        make = libseccomp.errno_action if name == "SCMP_ACT_ERRNO" else libseccomp.trace_action
        return make(number)
    if name not in _ACTIONS:
        raise InvalidArgument(f"{place} {name!r}: want one of {', '.join((*_ACTIONS, 'SCMP_ACT_ERRNO'))}")
    return _ACTIONS[name]


def _comparison(place: str, argument: _Argument) -> Comparison:
    op = argument.op.removeprefix("SCMP_CMP_")
    if not argument.op.startswith("SCMP_CMP_") or op not in libseccomp.COMPARE:
        raise InvalidArgument(f"{place}: args op {argument.op!r}: want e.g. SCMP_CMP_EQ")
    if not 0 <= argument.index < _MOST_ARGUMENTS:
        raise InvalidArgument(f"{place}: args index {argument.index}: want 0 to {_MOST_ARGUMENTS - 1}")
    for value in (argument.value, argument.value_two):
        if not 0 <= value <= _LARGEST_VALUE:
            raise InvalidArgument(f"{place}: args value {value}: want 64 bits without a sign")
    return Comparison(argument.index, op, argument.value, argument.value_two)


def _capabilities(place: str, condition: _Condition) -> tuple[str, ...]:
    names = condition.caps or ()
    for name in names:
        if not is_capability(name):
            raise InvalidArgument(f"{place}: caps {name!r}: no such capability")
    return tuple(map(normalise, names))

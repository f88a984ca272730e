"""Bindings for the functions of libseccomp.so.2 that compile filters to bytes.

By ctypes, as there are only a dozen functions: the Python bindings on PyPI are unmaintained, and parsing C
declarations at import would cost more than all compilations of a daemon. Constants: seccomp.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple

from phantom_cri.errors import FailedPrecondition

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
KILL_THREAD = 0x00000000
TRAP = 0x00030000
LOG = 0x7FFC0000


def errno_action(number: int) -> int:
    return 0x00050000 | (number & 0xFFFF)


def trace_action(number: int) -> int:
    return 0x7FF00000 | (number & 0xFFFF)


COMPARE = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}
_OPTIMIZE = 8  # SCMP_FLTATR_CTL_OPTIMIZE; 2: a binary tree over the numbers instead of a list
_UNKNOWN = -1  # __NR_SCMP_ERROR; other negative numbers are calls of other architectures


class Comparison(NamedTuple):
    """`argument` number of the call, `op` a value of COMPARE; MASKED_EQ: (argument & first) == second."""

    argument: int
    op: int
    first: int
    second: int = 0


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise FailedPrecondition(f"seccomp: libseccomp.so.2 cannot be loaded: {error}") from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_release.restype = None
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_arch_native.restype = ctypes.c_uint32
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    )
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    return library


_library = _load()


def native_architecture() -> int:
    """An AUDIT_ARCH_* number."""
    return int(_library.seccomp_arch_native())


def architecture(name: str) -> int | None:
    """`x86_64` → its AUDIT_ARCH_* number (x32 has one of libseccomp's own); None for an unknown name."""
    return int(_library.seccomp_arch_resolve_name(name.encode())) or None


def is_known(syscall: str) -> bool:
    """Whether this libseccomp knows the name, on any architecture."""
    return int(_library.seccomp_syscall_resolve_name(syscall.encode())) != _UNKNOWN


def number_on(arch: int, syscall: str) -> int | None:
    """The call's number on one architecture; None if it does not exist there."""
    number = int(_library.seccomp_syscall_resolve_name_arch(arch, syscall.encode()))
    return number if number >= 0 else None


class Filter:
    """One filter under construction; a context manager. Raises OSError with the library's code."""

    def __init__(self, default_action: int) -> None:
        self._context = _library.seccomp_init(default_action)
        if not self._context:
            raise OSError(errno.EINVAL, f"seccomp_init({default_action:#x})")
        self._check(_library.seccomp_attr_set(self._context, _OPTIMIZE, 2), "seccomp_attr_set")

    def __enter__(self) -> Filter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _library.seccomp_release(self._context)

    def add_architecture(self, arch: int) -> None:
        """Adding one twice is no error."""
        result = _library.seccomp_arch_add(self._context, arch)
        if result != -errno.EEXIST:
            self._check(result, "seccomp_arch_add")

    def add_rule(self, action: int, syscall: str, comparisons: Sequence[Comparison]) -> None:
        """All comparisons have to match. A rule with the default action is skipped."""
        number = _library.seccomp_syscall_resolve_name(syscall.encode())
        array = (_Comparison * len(comparisons))(*(_Comparison(*each) for each in comparisons))
        result = _library.seccomp_rule_add_array(self._context, action, number, len(comparisons), array)
        if result != -errno.EACCES:
            self._check(result, f"seccomp_rule_add {syscall}")

    def to_bytes(self) -> bytes:
        """An array of `struct sock_filter`."""
        fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        try:
            self._check(_library.seccomp_export_bpf(self._context, fd), "seccomp_export_bpf")
            return os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)

    @staticmethod
    def _check(result: int, what: str) -> None:
        if result < 0:
            raise OSError(-result, f"{what}: {os.strerror(-result)}")

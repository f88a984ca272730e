"""The C functions called from Python: starting fragments, and system calls that Python lacks."""

from __future__ import annotations

import fcntl
import os
from functools import lru_cache
from pathlib import Path

from phantom_cri.native._native import ffi, lib

__all__ = [
    "address_of",
    "boot_id",
    "bpf",
    "fragment_binary",
    "mount",
    "raise_file_limit",
    "spawn",
    "syncfs",
    "system_call",
    "unshare",
]

_FRAGMENT = Path(__file__).with_name("fragment")
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_MFD_EXEC = 0x0010


def spawn(
    binary_fd: int,
    title: str,
    clone_flags: int,
    listen_fd: int,
    state_fd: int,
    cgroup_fd: int = -1,
    stderr_fd: int = -1,
) -> tuple[int, int]:
    """Start a fragment: returns (pid, pidfd); the caller reaps the process and closes the pidfd.

    `clone_flags`: CLONE_NEW*, with CLONE_NEWNS; `listen_fd`: a listening SOCK_SEQPACKET socket;
    `state_fd`: the pod's state directory; `cgroup_fd`: cgroup v2 directory to start it in, or -1;
    `stderr_fd`: for its error messages, or -1. The caller keeps the fds.
    Blocks (without the GIL) until execve, some 0.1 to 0.5 ms. Raises OSError.
    """
    pidfd = ffi.new("int *", -1)
    result = lib.ph_spawn(
        binary_fd, title.encode(), clone_flags, listen_fd, state_fd, cgroup_fd, stderr_fd, pidfd
    )
    if result < 0:
        raise OSError(-result, f"spawn of {title!r}: {os.strerror(-result)}")
    return result, pidfd[0]


def boot_id() -> str:
    """The id of this boot: a UUID that the kernel creates at boot (random(4)). Raises OSError."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def raise_file_limit() -> None:
    """Raise this process's soft limit of open files to the hard one; fragments keep the original limit.

    The usual soft limit of 1024 exists for programs that use select(2). Call it once. Raises OSError.
    """
    result = lib.ph_raise_file_limit()
    if result < 0:
        raise OSError(-result, f"raise RLIMIT_NOFILE: {os.strerror(-result)}")


@lru_cache(maxsize=1)
def fragment_binary() -> int:
    """The fragment's executable in a sealed memfd that stays open as long as this process.

    Sealed, since a container that can open /proc/PID/exe of its fragment could otherwise overwrite the
    program of all pods (CVE-2019-5736). Raises OSError.
    """
    try:
        memory = os.memfd_create("fragment", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | _MFD_EXEC)
    except OSError:  # before Linux 6.3 there is no MFD_EXEC, and every memfd is executable
        memory = os.memfd_create("fragment", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(memory, "wb", closefd=False) as target:
            target.write(_FRAGMENT.read_bytes())
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(memory)
        raise
    return memory


def bpf(command: int, attributes: bytearray) -> int:
    """bpf(2) with `attributes` as union bpf_attr, written back to by the kernel. Raises OSError."""
    result: int = lib.ph_bpf(command, ffi.from_buffer(attributes), len(attributes))
    if result < 0:
        raise OSError(-result, f"bpf command {command}: {os.strerror(-result)}")
    return result


def system_call(number: int, *arguments: int | bytes | bytearray | None) -> int:
    """syscall(2): ints are passed as longs, bytes as pointers, None as NULL. Raises OSError."""
    words = [
        ffi.cast("long", value)
        if isinstance(value, int)
        else ffi.NULL
        if value is None
        else ffi.from_buffer(value)
        for value in arguments
    ]
    return _checked(lib.syscall(number, *words))


def mount(source: str, target: str, kind: str, flags: int = 0) -> None:
    """mount(2) without data. Raises OSError."""
    _checked(lib.mount(source.encode(), target.encode(), kind.encode(), flags, ffi.NULL))


def unshare(flags: int) -> None:
    """unshare(2), for the calling thread. Raises OSError."""
    _checked(lib.unshare(flags))


def syncfs(fd: int) -> None:
    """syncfs(2): syncs the file system of `fd`. Blocks, without the GIL. Raises OSError."""
    _checked(lib.syncfs(fd))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ffi.errno, os.strerror(ffi.errno))
    return result


def address_of(content: bytes) -> int:
    """The address of `content`, for a struct that points to it; valid as long as `content` exists."""
    return int(ffi.cast("uintptr_t", ffi.from_buffer(content)))

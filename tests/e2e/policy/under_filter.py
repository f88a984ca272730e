"""Loads the seccomp filter in a file, then runs a command, or makes system calls and prints how each ended.

    under_filter.py FILTER run COMMAND [ARG…]
    under_filter.py FILTER ask NUMBER,ARG,… …      → one line each: ok, or the errno's name
    under_filter.py FILTER time                    → microseconds that loading took

Kept free of the package: it runs in a process of its own, as a container's would.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import time

SECCOMP, SET_MODE_FILTER = {"x86_64": 317, "aarch64": 277}[os.uname().machine], 1


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


libc = ctypes.CDLL(None, use_errno=True)


def load(bpf: bytes) -> float:
    program = Program(len(bpf) // 8, bpf)
    began = time.perf_counter()
    if libc.syscall(SECCOMP, SET_MODE_FILTER, 0, ctypes.byref(program)):
        raise OSError(ctypes.get_errno(), "seccomp")
    return time.perf_counter() - began


def ask(call: str) -> str:
    number, *args = (int(part, 0) for part in call.split(","))
    ctypes.set_errno(0)
    result = libc.syscall(number, *(ctypes.c_ulong(arg) for arg in args))
    return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]


def main() -> None:
    with open(sys.argv[1], "rb") as file:
        bpf = file.read()
    took = load(bpf)
    if sys.argv[2] == "run":
        os.execvp(sys.argv[3], sys.argv[3:])  # noqa: S606
    elif sys.argv[2] == "time":
        print(took * 1e6)
    else:
        print("\n".join(ask(call) for call in sys.argv[3:]))


main()

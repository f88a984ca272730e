"""A small interpreter for seccomp filters: what the kernel would answer, without asking it."""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

ALLOW = 0x7FFF0000
X86_64, I386 = 0xC000003E, 0x40000003


def run(program: bytes, number: int, args: Sequence[int] = (), arch: int = X86_64) -> int:
    """The SECCOMP_RET_* value for one call."""
    whole = (*args, *[0] * (6 - len(args)))
    call = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *whole)
    accumulator, scratch, at = 0, [0] * 16, 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", call, value)
        elif code == 0x06:
            return int(value)
        elif code == 0x05:
            at += value
        elif code == 0x54:
            accumulator &= value
        elif code == 0x02:
            scratch[value] = accumulator
        elif code == 0x60:
            accumulator = scratch[value]
        elif code in (0x15, 0x25, 0x35):
            holds = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}[code]
            at += if_true if holds else if_false
        else:
            raise AssertionError(f"instruction {code:#x} at {at - 1}")


def answer(value: int) -> str:
    """`allow`, an errno's name, or the value in hex."""
    if value == ALLOW:
        return "allow"
    if value & 0xFFFF0000 == 0x00050000:
        return errno.errorcode[value & 0xFFFF]
    return f"{value:#x}"

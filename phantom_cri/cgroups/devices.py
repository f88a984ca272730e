"""Which device nodes a container may use: the rules, and their form for either cgroup version.

v1 takes lines written to `devices.allow`; v2 takes a BPF program of type CGROUP_DEVICE. Both start from
"nothing is allowed" and add what is listed. Pure: no system calls here (`device_filter` makes them).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from phantom_cri.errors import InvalidArgument


class DeviceRule(NamedTuple):
    """Allow `access` (of "r", "w", "m") to device nodes of one kind; `None` stands for any number.

    `kind`: "c" character, "b" block, "a" both.
    """

    kind: Literal["a", "b", "c"]
    major: int | None
    minor: int | None
    access: str

    def check(self) -> None:
        """Raises InvalidArgument naming what is wrong."""
        if self.kind not in ("a", "b", "c"):
            raise InvalidArgument(f"device kind {self.kind!r}: want a, b or c")
        if not self.access or not set(self.access) <= set("rwm"):
            raise InvalidArgument(f"device permissions {self.access!r}: want a subset of rwm")
        for name, number in (("major", self.major), ("minor", self.minor)):
            if number is not None and not 0 <= number < 1 << 32:
                raise InvalidArgument(f"device {name} {number}: want 0 to 4294967295")


DEFAULT_RULES: tuple[DeviceRule, ...] = (
    # mknod of any device: CAP_MKNOD controls that, and a node without "rw" below cannot be opened.
    DeviceRule("c", None, None, "m"),
    DeviceRule("b", None, None, "m"),
    DeviceRule("c", 1, 3, "rwm"),  # null
    DeviceRule("c", 1, 5, "rwm"),  # zero
    DeviceRule("c", 1, 7, "rwm"),  # full
    DeviceRule("c", 1, 8, "rwm"),  # random
    DeviceRule("c", 1, 9, "rwm"),  # urandom
    DeviceRule("c", 5, 0, "rwm"),  # tty
    DeviceRule("c", 5, 1, "rwm"),  # console
    DeviceRule("c", 5, 2, "rwm"),  # ptmx
    DeviceRule("c", 136, None, "rwm"),  # pts/*
)
"""Allowed for every container (OCI runtime spec, "Default Devices"; numbers: admin-guide/devices.txt)."""


@lru_cache(maxsize=64)
def v1_lines(rules: tuple[DeviceRule, ...]) -> tuple[bytes, ...]:
    """Lines for `devices.allow`, in order (Documentation/admin-guide/cgroup-v1/devices.rst)."""
    lines = []
    for rule in rules:
        rule.check()
        # The kernel reads "a" as "everything", whatever follows, so a narrower "a" is written as b and c.
        for kind in ("b", "c") if rule.kind == "a" else (rule.kind,):
            lines.append(f"{kind} {_number(rule.major)}:{_number(rule.minor)} {rule.access}".encode())
    return tuple(lines)


def _number(number: int | None) -> str:
    return "*" if number is None else str(number)


# eBPF (Documentation/bpf/standardization/instruction-set.rst): opcode u8, registers u8 (dst low, src high),
# offset s16, immediate s32.
_LOAD_WORD = 0x61  # dst = *(u32 *)(src + offset)
_COPY_32 = 0xBC
_AND_32 = 0x54
_SHIFT_RIGHT_32 = 0x74
_JUMP_UNEQUAL_32 = 0x56
_JUMP_IF_ANY_BIT_32 = 0x46
_SET_64 = 0xB7
_EXIT = 0x95

_RESULT, _CONTEXT, _KIND, _ACCESS, _MAJOR, _MINOR = 0, 1, 2, 3, 4, 5

# enum bpf_devcg_* of include/uapi/linux/bpf.h.
_KIND_NUMBER = {"b": 1, "c": 2}
_ACCESS_BIT = {"m": 1, "r": 2, "w": 4}
_ALL_ACCESS = 7


def v2_program(rules: Sequence[DeviceRule]) -> bytes:
    """The rules as a BPF_PROG_TYPE_CGROUP_DEVICE program: 1 where one rule covers the whole access, else 0.

    Its context is `struct bpf_cgroup_dev_ctx`: access_type (access << 16 | kind), major, minor.
    """
    program = [
        _instruction(_LOAD_WORD, _KIND, _CONTEXT, 0, 0),
        _instruction(_COPY_32, _ACCESS, _KIND),
        _instruction(_AND_32, _KIND, immediate=0xFFFF),
        _instruction(_SHIFT_RIGHT_32, _ACCESS, immediate=16),
        _instruction(_LOAD_WORD, _MAJOR, _CONTEXT, 4),
        _instruction(_LOAD_WORD, _MINOR, _CONTEXT, 8),
    ]
    for rule in rules:
        rule.check()
    for rule in rules:
        block = _rule_block(rule)
        program += block
        if block == _answer(1):
            # It matches everything: the verifier refuses unreachable code (EINVAL, "unreachable insn").
            return b"".join(program)
    program += _answer(0)
    return b"".join(program)


def _rule_block(rule: DeviceRule) -> list[bytes]:
    """Compare, and jump to the next rule at the first difference."""
    wanted: list[tuple[int, int, int]] = []
    if rule.kind != "a":
        wanted.append((_JUMP_UNEQUAL_32, _KIND, _KIND_NUMBER[rule.kind]))
    refused = _ALL_ACCESS & ~sum(_ACCESS_BIT[letter] for letter in set(rule.access))
    if refused:
        wanted.append((_JUMP_IF_ANY_BIT_32, _ACCESS, refused))
    for register, number in ((_MAJOR, rule.major), (_MINOR, rule.minor)):
        if number is not None:
            wanted.append((_JUMP_UNEQUAL_32, register, number))
    answer = _answer(1)
    tests = []
    for position, (opcode, register, immediate) in enumerate(wanted):
        over = len(wanted) - position - 1 + len(answer)
        tests.append(_instruction(opcode, register, offset=over, immediate=immediate))
    return tests + answer


def _answer(value: int) -> list[bytes]:
    return [_instruction(_SET_64, _RESULT, immediate=value), _instruction(_EXIT)]


def _instruction(opcode: int, target: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    signed = immediate - (1 << 32) if immediate >= 1 << 31 else immediate
    return struct.pack("<BBhi", opcode, target | source << 4, offset, signed)

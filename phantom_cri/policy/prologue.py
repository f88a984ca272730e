"""What stands before a filter of libseccomp's: answers for system calls that are newer than that library.

A program built for a newer kernel tries a new call first and takes ENOSYS as "not there, use the old one";
any other answer it takes as final. A filter made from a list without that call says EPERM, and breaks the
program. So: a number above all that the profile names is answered with ENOSYS. And calls that the profile
names but libseccomp is too old to know are allowed here by number.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from phantom_cri.policy.libseccomp import ALLOW, errno_action

NEW_SYSCALLS: Mapping[str, int] = {
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
    "listns": 470,
}
"""Calls since Linux 6.5, from scripts/syscall.tbl; from 424 on all architectures share one numbering."""

AUDIT_X86_64 = 0xC000003E
NEW_ON_X86_64: Mapping[str, int] = {"uretprobe": 335}
"""syscall_64.tbl, Linux 6.11: called by the kernel's own trampoline, which kills where it is refused."""

# Known to some libseccomp, on architectures that others do not know.
ELSEWHERE = frozenset({"riscv_hwprobe", "riscv_flush_icache", "s390_pci_mmio_read", "s390_pci_mmio_write"})

# struct seccomp_data: nr at 0, arch at 4. Classic BPF: filter.txt.
_LOAD, _EQUAL, _GREATER, _GREATER_EQUAL, _JUMP, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x05, 0x06
_NUMBER_AT, _ARCH_AT = 0, 4
_X32_BIT = 0x40000000


class NewCalls(NamedTuple):
    """For one AUDIT_ARCH_*: numbers to allow, and the highest that the profile names (None: no ENOSYS)."""

    arch: int
    allowed: frozenset[int]
    highest: int | None


def number_of(name: str, arch: int) -> int | None:
    """The number of a new call, None if it is not one."""
    if arch == AUDIT_X86_64 and name in NEW_ON_X86_64:
        return NEW_ON_X86_64[name]
    return NEW_SYSCALLS.get(name)


def prepend(calls: Iterable[NewCalls], body: bytes) -> bytes:
    """The whole filter: one block an architecture, each falling through to `body`."""
    blocks = [_block(call) for call in calls]
    rest = sum(len(block) for block in blocks)
    program = [_instruction(_LOAD, _ARCH_AT)]
    for block in blocks:
        rest -= len(block)
        # The last but two of a block is the way on to the body, over the answers and the blocks that follow.
        block[-3] = _instruction(_JUMP, 2 + rest)
        program += block
    return b"".join(program) + body


def _block(call: NewCalls) -> list[bytes]:
    """Skipped on another architecture; the accumulator still holds it for the next block then."""
    tests: list[tuple[int, int, str]] = []
    if call.arch == AUDIT_X86_64:
        tests.append((_GREATER_EQUAL, _X32_BIT, "body"))
    tests += [(_EQUAL, number, "allow") for number in sorted(call.allowed)]
    if call.highest is not None:
        tests.append((_GREATER, call.highest, "missing"))
    beyond = {"body": 0, "allow": 1, "missing": 2}
    block = [_instruction(_EQUAL, call.arch, 0, len(tests) + 4), _instruction(_LOAD, _NUMBER_AT)]
    for position, (opcode, value, target) in enumerate(tests):
        block.append(_instruction(opcode, value, len(tests) - position - 1 + beyond[target], 0))
    block.append(b"")  # to the body: filled in by `prepend`
    block.append(_instruction(_RETURN, ALLOW))
    block.append(_instruction(_RETURN, errno_action(errno.ENOSYS)))
    return block


def _instruction(opcode: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", opcode, if_true, if_false, value)

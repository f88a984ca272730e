"""The first part of a filter, before libseccomp's: calls that are decided by their number alone.

Every container loads its filter, and each instruction costs 0.3 µs (check, translation, and a trial of every
call for the kernel's cache of constant answers). libseccomp uses about one instruction for each call of each
architecture; a search tree over ranges of numbers uses one for five. libseccomp's part then only has the
rules that compare arguments.

This part also decides calls that are newer than libseccomp. A program built for a newer kernel tries a new
call first and falls back to the old one on ENOSYS; any other error is final. A filter made from a list
without that call returns EPERM, and breaks the program. So numbers above all those in the profile get ENOSYS,
and new calls that the profile allows are allowed here.
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
"""syscall_64.tbl, Linux 6.11: called by the kernel's trampoline; if refused, the process is killed."""

# Only known to libseccomp versions with these architectures.
ELSEWHERE = frozenset({"riscv_hwprobe", "riscv_flush_icache", "s390_pci_mmio_read", "s390_pci_mmio_write"})

# struct seccomp_data: nr at 0, arch at 4. Classic BPF: filter.txt.
_LOAD, _EQUAL, _GREATER_EQUAL, _JUMP, _RETURN = 0x20, 0x15, 0x35, 0x05, 0x06
_NUMBER_AT, _ARCH_AT = 0, 4
_X32_BIT = 0x40000000
_MOST_NODES = 250  # a conditional jump can skip at most 255 instructions

_BODY, _ALLOW, _MISSING = -3, -2, -1  # a block's last three instructions, counted from its end
Points = list[tuple[int, int]]


class Answers(NamedTuple):
    """For one AUDIT_ARCH_*: numbers to allow, and the highest in the profile (None: no ENOSYS)."""

    arch: int
    allowed: frozenset[int]
    highest: int | None


def number_of(name: str, arch: int) -> int | None:
    """The number of a new call, None if it is not one."""
    if arch == AUDIT_X86_64 and name in NEW_ON_X86_64:
        return NEW_ON_X86_64[name]
    return NEW_SYSCALLS.get(name)


def fits(answers: Answers) -> bool:
    """Whether they fit in one block; a list with many gaps may be too long."""
    return len(_points(answers)) <= _MOST_NODES


def prepend(answers: Iterable[Answers], body: bytes) -> bytes:
    """The whole filter: one block per architecture; undecided calls continue in `body`."""
    blocks = [_block(each) for each in answers]
    rest = sum(len(block) for block in blocks)
    program = [_instruction(_LOAD, _ARCH_AT)]
    for block in blocks:
        rest -= len(block)
        # Jumps over the two returns of this block, and over the following blocks.
        block[_BODY] = _instruction(_JUMP, 2 + rest)
        program += block
    return b"".join(program) + body


def _block(answers: Answers) -> list[bytes]:
    """Skipped on another architecture, whose number stays in the accumulator for the next block."""
    nodes: list[tuple[int, int, int]] = []
    _plant(_points(answers), nodes)
    size = len(nodes) + 5
    block = [_instruction(_EQUAL, answers.arch, 0, size - 1), _instruction(_LOAD, _NUMBER_AT)]
    for number, at_least, below in nodes:
        here = len(block)
        ways = (target if target < 0 else target + 2 for target in (at_least, below))
        jumps = [(way + size if way < 0 else way) - here - 1 for way in ways]
        block.append(_instruction(_GREATER_EQUAL, number, *jumps))
    block.append(b"")  # to the body: filled in by `prepend`
    block.append(_instruction(_RETURN, ALLOW))
    block.append(_instruction(_RETURN, errno_action(errno.ENOSYS)))
    return block


def _points(answers: Answers) -> Points:
    """(number, answer from this number up to the next point), in order."""
    points = {0: _BODY}
    for number in sorted(answers.allowed):
        # If the previous number is allowed too, the range continues.
        if number - 1 in answers.allowed:
            del points[number]
        else:
            points[number] = _ALLOW
        points[number + 1] = _BODY
    if answers.highest is not None:
        points[answers.highest + 1] = _MISSING
    if answers.arch == AUDIT_X86_64:
        points.setdefault(_X32_BIT, _BODY)
    return sorted(points.items())


def _plant(points: Points, nodes: list[tuple[int, int, int]]) -> int:
    """A balanced tree of >= comparisons, parents first; returns its root, or the answer of a single point."""
    if len(points) == 1:
        return points[0][1]
    index, middle = len(nodes), len(points) // 2
    nodes.append((0, 0, 0))
    below = _plant(points[:middle], nodes)
    at_least = _plant(points[middle:], nodes)
    nodes[index] = (points[middle][0], at_least, below)
    return index


def _instruction(opcode: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", opcode, if_true, if_false, value)

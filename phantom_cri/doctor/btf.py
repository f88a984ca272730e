"""The id of a kernel function in the kernel's own type information (Documentation/bpf/btf.rst)."""

from __future__ import annotations

import struct
from pathlib import Path

KERNEL = Path("/sys/kernel/btf/vmlinux")

_FUNCTION = 12
_BYTES_AFTER = {1: 4, 3: 12, 14: 4, 17: 4}  # int, array, variable, declaration tag
_BYTES_PER_MEMBER = {
    4: 12,
    5: 12,
    6: 8,
    13: 8,
    15: 12,
    19: 12,
}  # struct, union, enum, prototype, section, enum64


def function_id(name: str, types: bytes | None = None) -> int:
    """Raises OSError when the kernel has no such function or exports no types. Takes about 0.1 s."""
    content = KERNEL.read_bytes() if types is None else types
    magic, _, _, header, type_offset, type_length, string_offset, string_length = struct.unpack_from(
        "=HBBIIIII", content
    )
    if magic != 0xEB9F:
        raise OSError(22, "not BTF")
    strings = header + string_offset
    found = content.find(b"\0" + name.encode() + b"\0", strings, strings + string_length)
    wanted = found + 1 - strings
    position, end, type_id = header + type_offset, header + type_offset + type_length, 1
    read = struct.Struct("=III").unpack_from
    while found >= 0 and position < end:
        name_offset, details, _ = read(content, position)
        kind = details >> 24 & 0x1F
        if kind == _FUNCTION and name_offset == wanted:
            return type_id
        members = details & 0xFFFF
        position += 12 + _BYTES_AFTER.get(kind, 0) + members * _BYTES_PER_MEMBER.get(kind, 0)
        type_id += 1
    raise OSError(2, f"the kernel has no function {name}")

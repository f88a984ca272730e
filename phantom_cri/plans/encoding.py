"""Encodes the fields of an op, by the signature letters of native/ops.def.

Layout: native/protocol.h, below `struct ph_plan`. Everything is little endian and 8-aligned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from phantom_cri.errors import InvalidArgument

_PADDING = tuple(bytes(8 - length) for length in range(8))
"""By length modulo 8: the NUL of a string or byte field and the zeros up to the next multiple of 8."""


def _unsigned(value: int) -> bytes:
    return value.to_bytes(8, "little")


def _signed(value: int) -> bytes:
    return value.to_bytes(8, "little", signed=True)


def _bytes(value: bytes) -> bytes:
    length = len(value)
    return length.to_bytes(8, "little") + value + _PADDING[length & 7]


def _text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise InvalidArgument(f"a NUL byte in {value!r}")
    length = len(raw)
    return length.to_bytes(8, "little") + raw + _PADDING[length & 7]


def _vector(values: Sequence[str]) -> bytes:
    return len(values).to_bytes(8, "little") + b"".join([_text(value) for value in values])


ENCODERS: dict[str, Callable[[Any], bytes]] = {
    "u": _unsigned,
    "i": _signed,
    "s": _text,
    "b": _bytes,
    "v": _vector,
}

"""Frames of ttrpc, which containerd and its shims speak: a head of 10 bytes, then protobuf.

Wire facts: `length u32 | stream u32 | type u8 | flags u8`, big endian, then at most 4 MiB. Stream ids are the
client's: odd, and rising. There is neither handshake nor flow control.
"""

from __future__ import annotations

import asyncio
import struct
from enum import IntEnum
from typing import NamedTuple

from phantom_cri.errors import DataLoss, ResourceExhausted

HEAD = struct.Struct(">IIBB")
LARGEST = 4 << 20
"""Bytes of one frame behind its head."""

_CHUNK = 1 << 16


class Kind(IntEnum):
    REQUEST = 1
    RESPONSE = 2


class Frame(NamedTuple):
    """`body` is None for one that was too large: it has been read and thrown away."""

    stream: int
    kind: int
    flags: int
    body: bytes | None


def pack(stream: int, kind: Kind, body: bytes) -> bytes:
    """Raises ResourceExhausted for more than `LARGEST` bytes."""
    if len(body) > LARGEST:
        raise ResourceExhausted(f"a message of {len(body)} bytes: ttrpc takes at most {LARGEST}")
    return HEAD.pack(len(body), stream, kind, 0) + body


async def read_frame(reader: asyncio.StreamReader) -> Frame | None:
    """The next one; None at the end. Raises DataLoss when the other side ends within a frame."""
    try:
        head = await reader.readexactly(HEAD.size)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise DataLoss(
                f"ttrpc: the connection ended after {len(error.partial)} bytes of a head"
            ) from None
        return None
    length, stream, kind, flags = HEAD.unpack(head)
    if length > LARGEST:
        await _discard(reader, length)
        return Frame(stream, kind, flags, None)
    try:
        return Frame(stream, kind, flags, await reader.readexactly(length))
    except asyncio.IncompleteReadError as error:
        raise DataLoss(f"ttrpc: the connection ended after {len(error.partial)} of {length} bytes") from None


async def _discard(reader: asyncio.StreamReader, length: int) -> None:
    while length:
        piece = await reader.read(min(length, _CHUNK))
        if not piece:
            raise DataLoss(f"ttrpc: the connection ended {length} bytes before the end of a frame")
        length -= len(piece)

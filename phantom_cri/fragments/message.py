"""The packets between daemon and fragment: `struct ph_message` of native/protocol.h."""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

from phantom_cri.codec import Record
from phantom_cri.errors import DataLoss, InvalidArgument
from phantom_cri.plans import constants

LAYOUT = struct.Struct(f"<4IQ2qiI{constants.ID_SIZE}s2q2i2I")


class Type(IntEnum):
    HELLO = 1
    ADOPT = 2
    START = 3
    SIGNAL = 4
    REOPEN = 5
    LIST = 6
    GET = 7
    FORGET = 8
    SHUTDOWN = 9
    CLOSE_STDIN = 10
    GO = 11
    ATTACH = 12
    SOCKET = 13
    KEEP = 14
    KEPT = 15
    OK = 64
    ERROR = 65
    ENTRY = 66
    EXITED = 67
    RESYNC = 68
    DETACHED = 69


class AdoptFlag(IntFlag):
    CLAIM = 1


class SignalFlag(IntFlag):
    ALL = 1


class AttachFlag(IntFlag):
    INPUT = 1
    STDOUT = 2
    STDERR = 4
    ONCE = 8


FLAGS = {
    kind: sum(flag.value for flag in flags)
    for kind, flags in ((Type.ADOPT, AdoptFlag), (Type.SIGNAL, SignalFlag), (Type.ATTACH, AttachFlag))
}
"""By type of request; types without flags are omitted."""


class Phase(IntEnum):
    WARM = 1
    CLAIMED = 2
    STOPPING = 3


class State(IntEnum):
    STARTING = 1
    RUNNING = 2
    EXITED = 3
    PREPARED = 4


class Exit(Record, frozen=True):
    """How a process ended. Times: ns since the epoch, 0: not yet. `code`: 128 + signal if killed by one."""

    started_at: int = 0
    finished_at: int = 0
    code: int = 0
    signal: int = 0
    oom: bool = False
    dropped_lines: int = 0


class Message(NamedTuple):
    type: int
    flags: int
    serial: int
    value: int
    value2: int
    error: int
    process_id: str
    exit: Exit
    text: bytes


_NO_EXIT = Exit()
_NEVER = (0, 0, 0, 0, 0, 0)


def pack(
    type: Type, serial: int, *, process_id: str = "", flags: int = 0, value: int = 0, value2: int = 0
) -> bytes:
    """Raises InvalidArgument if the id is too long or has a NUL."""
    raw = process_id.encode()
    if len(raw) > constants.ID_MAX or b"\0" in raw:
        raise InvalidArgument(f"process id {process_id!r}: at most {constants.ID_MAX} bytes, no NUL")
    return LAYOUT.pack(LAYOUT.size, type, flags, 0, serial, value, value2, 0, 0, raw, *_NEVER)


def unpack(packet: bytes) -> Message:
    """Unknown fields are ignored. Raises DataLoss if the packet's length differs from its header."""
    if len(packet) < LAYOUT.size:
        raise DataLoss(f"a fragment sent {len(packet)} bytes, a message has at least {LAYOUT.size}")
    size, type, flags, text_length, serial, value, value2, error, _, raw_id, *exit = LAYOUT.unpack_from(
        packet
    )
    if size < constants.MESSAGE_MIN or len(packet) != size + text_length:
        raise DataLoss(
            f"a fragment sent {len(packet)} bytes with a head of {size} and a text of {text_length}"
        )
    return Message(
        type,
        flags,
        serial,
        value,
        value2,
        error,
        raw_id.partition(b"\0")[0].decode("utf-8", "replace"),
        Exit(exit[0], exit[1], exit[2], exit[3], bool(exit[4]), exit[5]) if any(exit) else _NO_EXIT,
        packet[size:] if text_length else b"",
    )

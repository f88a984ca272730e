"""A fragment's end of the socket that says what a test tells it to, packed from native/protocol.h alone."""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

WITH_PLAN = (2, 3)  # PH_ADOPT, PH_START
LAYOUT = struct.Struct("=IIIIQqqiI168sqqiiII")


EVERYTHING = [(kind, number, 0xFFFFFFFF) for kind in (1, 2, 3) for number in range(64)]


class Asked(NamedTuple):
    type: int
    flags: int
    serial: int
    value: int
    process_id: str
    plan: bytes
    fds: int


class FakeFragment:
    def __init__(self) -> None:
        self.socket, self.peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.peer.setblocking(False)
        self.socket.settimeout(5)

    def receive(self) -> Asked:
        packet, ancillary, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(256 * 4))
        fds = array.array("i")
        for _, _, content in ancillary:
            fds.frombytes(content)
        fields = LAYOUT.unpack(packet)
        assert fields[0] == LAYOUT.size == len(packet)
        plan = os.pread(fds[0], 1 << 20, 0) if fds and fields[1] in WITH_PLAN else b""
        for fd in fds:
            os.close(fd)
        process_id = fields[9].rstrip(b"\0").decode()
        return Asked(fields[1], fields[2], fields[4], fields[5], process_id, plan, len(fds))

    def send(
        self,
        type: int,
        serial: int = 0,
        *,
        flags: int = 0,
        value: int = 0,
        value2: int = 0,
        error: int = 0,
        process_id: str = "",
        exit: tuple[int, int, int, int, int, int] = (0, 0, 0, 0, 0, 0),
        text: bytes = b"",
        more: bytes = b"",
        fds: tuple[int, ...] = (),
    ) -> None:
        size = LAYOUT.size + len(more)
        head = (size, type, flags, len(text), serial, value, value2, error, 0, process_id.encode(), *exit)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([LAYOUT.pack(*head) + more + text], ancillary)

    def answer_hello(
        self,
        serial: int,
        *,
        phase: int = 1,
        oldest: int = 1,
        newest: int = 1,
        features: Sequence[tuple[int, int, int]] | None = None,
        more: bytes = b"",
    ) -> None:
        """`features`: (kind, number, flags) each; None: all there are, with all flags."""
        head = struct.pack("=4I", 16 + len(more), oldest, newest, phase) + more
        known = EVERYTHING if features is None else features
        self.send(64, serial, text=head + b"".join(struct.pack("=HHI", *feature) for feature in known))

    def close(self) -> None:
        self.socket.close()

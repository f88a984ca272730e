"""Minimal rtnetlink, to connect a pod in a few hundred microseconds.

A message has a header, a fixed struct, and attributes (netlink(7), rtnetlink(7)). They are packed with
`struct` and sent together, since the kernel handles all messages of one `sendto` before it returns: one
system call connects a pod, a second one reads the answers.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from phantom_cri import errors

NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE, NLM_F_DUMP = 0x1, 0x4, 0x200, 0x400, 0x300
NLM_F_REPLACE = 0x100
NLMSG_ERROR, NLMSG_DONE = 2, 3

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_ERROR = struct.Struct("=i")
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_RECEIVE_BYTES = 1 << 16
_BATCH = 32  # answers that surely fit into a socket's default receive buffer
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
_NLM_F_CAPPED, _NLM_F_ACK_TLVS, _NLMSGERR_ATTR_MSG = 0x100, 0x200, 1


class Answer(NamedTuple):
    """The kernel's answer to one request: `error` is 0 or an errno, `reason` its message, if any."""

    error: int
    reason: str


def attribute(kind: int, payload: bytes) -> bytes:
    """One nlattr, padded to four bytes. `payload` may be nested attributes."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def u32(kind: int, value: int) -> bytes:
    return struct.pack("=HHI", 8, kind, value)


def u8(kind: int, value: int) -> bytes:
    return struct.pack("=HHBxxx", 5, kind, value)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode("ascii") + b"\0")


def message(kind: int, flags: int, body: bytes, sequence: int = 0) -> bytes:
    """A whole message; `NLM_F_REQUEST` is added, the length is padded to four bytes."""
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, kind, flags | NLM_F_REQUEST, sequence, 0) + body + bytes(-length % 4)


def messages(packet: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each message in a packet."""
    offset = 0
    while offset + _HEADER.size <= len(packet):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(packet, offset)
        if length < _HEADER.size:
            return
        yield kind, flags, sequence, packet[offset + _HEADER.size : offset + length]
        offset += length + (-length % 4)


def attributes(body: bytes, offset: int) -> dict[int, bytes]:
    """The attributes that follow the fixed struct of `offset` bytes; of repeated ones the last."""
    found = {}
    while offset + 4 <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < 4:
            break
        found[kind & _TYPE_MASK] = body[offset + 4 : offset + length]
        offset += length + (-length % 4)
    return found


class NetlinkSocket:
    """One socket in the network namespace where it was opened. For one thread at a time.

    Raises OSError if the kernel lacks this netlink family; refused requests are returned as `Answer`s.
    """

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._protocol = protocol
        self._socket = _open(protocol)

    def close(self) -> None:
        self._socket.close()

    def ask(self, requests: Sequence[bytes]) -> list[Answer]:
        """Send all, each with `NLM_F_ACK`, and return one answer for each.

        The kernel continues after a refused request, so later ones can fail as a consequence.
        """
        answers: list[Answer] = []
        with self._renewed_on_error():
            for start in range(0, len(requests), _BATCH):
                self._ask(requests[start : start + _BATCH], answers)
        return answers

    def _ask(self, requests: Sequence[bytes], answers: list[Answer]) -> None:
        wanted = len(answers) + len(requests)
        self._socket.send(b"".join(requests))
        while len(answers) < wanted:
            for kind, flags, _, body in messages(self._socket.recv(_RECEIVE_BYTES)):
                if kind == NLMSG_ERROR:
                    answers.append(_answer(flags, body))

    def dump(self, kind: int, body: bytes) -> list[tuple[int, bytes]]:
        """(type, body) of all answers to a dump request. Raises OSError if it is refused."""
        with self._renewed_on_error():
            return self._dump(message(kind, NLM_F_DUMP, body))

    def _dump(self, request: bytes) -> list[tuple[int, bytes]]:
        self._socket.send(request)
        rows: list[tuple[int, bytes]] = []
        while True:
            for answer, _, _, row in messages(self._socket.recv(_RECEIVE_BYTES)):
                if answer == NLMSG_DONE:
                    return rows
                if answer == NLMSG_ERROR:
                    raise OSError(-_ERROR.unpack_from(row)[0], "netlink dump")
                rows.append((answer, row))

    @contextlib.contextmanager
    def _renewed_on_error(self) -> Iterator[None]:
        """After an error the socket is reopened, so that the next request does not read old answers."""
        try:
            yield
        except OSError:
            self._socket.close()
            self._socket = _open(self._protocol)
            raise


def _open(protocol: int) -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            opened.setsockopt(_SOL_NETLINK, option, 1)
        opened.settimeout(5)  # answers are available when send returns: only for a broken kernel
    except BaseException:
        opened.close()
        raise
    return opened


def _answer(flags: int, body: bytes) -> Answer:
    error = -_ERROR.unpack_from(body)[0]
    if not error or not flags & _NLM_F_ACK_TLVS:
        return Answer(error, "")
    # nlmsgerr holds the request's header, and its body too unless capped (include/uapi/linux/netlink.h)
    echoed = _HEADER.size if flags & _NLM_F_CAPPED else _HEADER.unpack_from(body, 4)[0]
    reason = attributes(body, 4 + echoed + (-echoed % 4)).get(_NLMSGERR_ATTR_MSG, b"")
    return Answer(error, reason.rstrip(b"\0").decode("utf-8", "replace"))


def explain(answer: Answer) -> str:
    """`ENODEV`, or `EINVAL: <the kernel's message>`."""
    name = errors.errno_name(answer.error)
    return f"{name}: {answer.reason}" if answer.reason else name

"""SPDY/3.1 frames as used by Kubernetes' clients: no flow control, streams opened by the client only.

Source: the SPDY draft 3.1 and the behaviour of moby/spdystream. Integers are big endian.
"""

from __future__ import annotations

import struct
import zlib
from typing import Protocol

VERSION = 3
SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY, HEADERS = 1, 2, 3, 6, 7, 8
FIN = 0x01
UNIDIRECTIONAL = 0x02

PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, CANCEL, ALREADY_CLOSED = 1, 2, 3, 5, 9
"""Status codes of RST_STREAM."""

GOAWAY_OK, GOAWAY_PROTOCOL_ERROR = 0, 1

DATA_LIMIT = (1 << 24) - 1
CONTROL_LIMIT = 16 << 10
"""Limit of control frames in bytes: clients send only a few headers per stream."""

HEADERS_LIMIT = 64 << 10
"""Limit of an inflated header block in bytes."""

_FRAME = struct.Struct(">II")
_CONTROL_BIT = 0x8000_0000
_TWO_WORDS = struct.Struct(">II")

_WORDS = """
options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges
age allow authorization cache-control connection content-base content-encoding content-language
content-length content-location content-md5 content-range content-type date etag expect expires from
host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location
max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer
transfer-encoding upgrade user-agent vary via warning www-authenticate method get status 200_OK version
HTTP/1.1 url public set-cookie keep-alive origin
"""
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _words() -> list[str]:
    return [word.replace("_", " ") for word in _WORDS.split()]


DICTIONARY = b"".join(struct.pack(">I", len(word)) + word.encode() for word in _words()) + _TAIL.encode()
"""The dictionary of both zlib streams, SPDY draft 3.1, section 2.6.10.1."""


class ProtocolViolation(Exception):
    """The peer violated the protocol; the connection cannot be used any more."""


class FrameTaker(Protocol):
    def take_data(self, stream_id: int, chunk: memoryview) -> None:
        """A part of a DATA frame, of any size; valid until this returns."""
        ...

    def take_end(self, stream_id: int) -> None:
        """The DATA frame that has just ended had the FIN flag."""
        ...

    def take_control(self, kind: int, flags: int, payload: bytes) -> None: ...


class FrameReader:
    """Splits a byte stream into frames. Buffers at most one control frame, and no data."""

    def __init__(self, taker: FrameTaker) -> None:
        self._taker = taker
        self._partial = bytearray()
        self._data_left = 0
        self._stream_id = 0
        self._fin = False

    def feed(self, chunk: memoryview) -> None:
        """Raises ProtocolViolation; must not be called again after that."""
        at, end = 0, len(chunk)
        while at < end:
            if self._data_left:
                until = min(end, at + self._data_left)
                self._data_left -= until - at
                self._taker.take_data(self._stream_id, chunk[at:until])
                at = until
                self._end_data()
            elif not self._partial and end - at >= 8 and not chunk[at] & 0x80:
                self._begin_data(*_FRAME.unpack_from(chunk, at))
                at += 8
            else:
                at = self._collect(chunk, at)

    def _begin_data(self, stream_id: int, flags_length: int) -> None:
        self._stream_id = stream_id
        self._fin = bool(flags_length >> 24 & FIN)
        self._data_left = flags_length & DATA_LIMIT
        self._end_data()

    def _end_data(self) -> None:
        if not self._data_left and self._fin:
            self._fin = False
            self._taker.take_end(self._stream_id)

    def _collect(self, chunk: memoryview, at: int) -> int:
        """Collects a split header, or a control frame, up to its end; returns the offset after it."""
        held = self._partial
        need = 8 if len(held) < 8 else 8 + _control_length(held)
        until = min(len(chunk), at + need - len(held))
        held += chunk[at:until]
        if len(held) < need:
            return until
        if not held[0] & 0x80:
            self._partial = bytearray()
            self._begin_data(*_FRAME.unpack(held))
        elif len(held) == 8 + _control_length(held):
            self._partial = bytearray()
            kind = int.from_bytes(held[2:4], "big")
            self._taker.take_control(kind, held[4], bytes(held[8:]))
        return until


def _control_length(header: bytearray) -> int:
    """Bytes that follow the header of a control frame. Raises ProtocolViolation."""
    version = int.from_bytes(header[:2], "big") & 0x7FFF
    if version != VERSION:
        raise ProtocolViolation(f"version {version} in a control frame")
    length = int.from_bytes(header[5:8], "big")
    if length > CONTROL_LIMIT:
        raise ProtocolViolation(f"a control frame of {length} bytes")
    return length


class HeaderReader:
    """One direction's header blocks. They share a zlib stream, so every block has to be read, in order."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)

    def read(self, block: bytes) -> dict[str, str]:
        """Headers with lower-case names. Raises ProtocolViolation for an incomplete or too large block."""
        try:
            raw = self._zlib.decompress(block, HEADERS_LIMIT + 1)
        except zlib.error as error:
            raise ProtocolViolation(f"header block: {error}") from None
        if len(raw) > HEADERS_LIMIT or self._zlib.eof:
            raise ProtocolViolation("header block: too long, or the last of its zlib stream")
        try:
            return _headers(raw)
        except (struct.error, UnicodeDecodeError):
            raise ProtocolViolation("header block: cut short, or not ASCII") from None


def _headers(raw: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    (count,) = struct.unpack_from(">I", raw)
    at = 4
    for _ in range(count):
        texts = []
        for _ in range(2):
            (length,) = struct.unpack_from(">I", raw, at)
            (text,) = struct.unpack_from(f"{length}s", raw, at + 4)
            texts.append(text.decode("ascii"))
            at += 4 + length
        found[texts[0].lower()] = texts[1]
    return found


class HeaderWriter:
    """Our direction's header blocks, which are always empty."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(zdict=DICTIONARY)

    def empty(self) -> bytes:
        return self._zlib.compress(bytes(4)) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


def control(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return _FRAME.pack(_CONTROL_BIT | VERSION << 16 | kind, flags << 24 | len(payload)) + payload


def data_header(stream_id: int, length: int, flags: int = 0) -> bytes:
    """The header for `length` (at most DATA_LIMIT) bytes of data."""
    return _FRAME.pack(stream_id, flags << 24 | length)


def reset(stream_id: int, status: int) -> bytes:
    return control(RST_STREAM, _TWO_WORDS.pack(stream_id, status))


def goaway(last_stream: int, status: int) -> bytes:
    return control(GOAWAY, _TWO_WORDS.pack(last_stream, status))

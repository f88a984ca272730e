"""Layer archives as a stream: sniffed decompression, a running digest, and a tar reader.

A reader of its own, because `tarfile` reads extension headers of any claimed size into
memory and decodes extended attributes as text. Formats: v7, ustar, PAX and GNU (pax(1),
tar(5)); sparse members are refused. Names become str as os.fsdecode does.
"""

from __future__ import annotations

import base64
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol
from urllib.parse import unquote_to_bytes

import zstandard

from phantom_cri.errors import DataLoss, InvalidArgument, ResourceExhausted

BLOCK = 512
_CHUNK = 256 << 10
_HEADER_LIMIT = 1 << 20  # of the PAX and long-name headers of one entry; Go's archive/tar has it per header
_ZSTD_WINDOW = 128 << 20
_ZERO = bytes(BLOCK)

REGULAR, HARDLINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_KNOWN = frozenset({REGULAR, HARDLINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO})


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def decompressed(source: BinaryIO) -> Readable:
    """The tar inside `source`, whatever it is wrapped in: the media type is not to be trusted."""
    magic = source.read(4)
    source.seek(0)
    if magic[:3] == b"\x1f\x8b\x08":
        return _Gzip(source)
    if magic == b"\x28\xb5\x2f\xfd" or (magic[1:] == b"\x2a\x4d\x18" and magic[0] & 0xF0 == 0x50):
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        return decompressor.stream_reader(source, read_size=_CHUNK, read_across_frames=True, closefd=False)
    return source


class _Gzip:
    """All members of a gzip file; never holds more than one chunk of output (a bomb stays small)."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._member = zlib.decompressobj(31)
        self._input = b""
        self._started = False

    def read(self, size: int, /) -> bytes:
        while True:
            if self._member.eof:
                self._input = self._member.unused_data
                self._member, self._started = zlib.decompressobj(31), False
            ended = not self._input and not (fresh := self._source.read(_CHUNK))
            if not self._input and not ended:
                self._input = fresh
            if not self._started:
                if ended:
                    return b""
                self._input = self._input.lstrip(b"\0")  # padding between members
                if not self._input:
                    continue
                self._started = True
            out = self._member.decompress(self._input, size)
            self._input = self._member.unconsumed_tail
            if out:
                return out
            if ended and not self._member.eof:
                raise DataLoss("gzip stream ends in the middle")


class LayerStream:
    """Uncompressed bytes of a layer, hashed and counted as they pass."""

    def __init__(self, source: BinaryIO, limit: int) -> None:
        self._source = decompressed(source)
        self._limit = limit
        self._hash = hashlib.sha256()
        self._buffer = memoryview(b"")
        self.count = 0

    def read(self, size: int) -> memoryview:
        """At most `size` bytes, at least one; empty at the end. Raises DataLoss, ResourceExhausted."""
        if not self._buffer:
            self._buffer = memoryview(self._fill())
        part, self._buffer = self._buffer[:size], self._buffer[size:]
        return part

    def exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self.read(size - len(parts))
            if not part:
                raise DataLoss(f"layer ends {size - len(parts)} bytes short, in the middle of an entry")
            parts += part
        return bytes(parts)

    def digest(self) -> str:
        """DiffID of the whole stream: read to its very end, padding behind the archive included."""
        while self.read(_CHUNK):
            pass
        return f"sha256:{self._hash.hexdigest()}"

    def _fill(self) -> bytes:
        try:
            chunk = self._source.read(_CHUNK)
        except (zlib.error, zstandard.ZstdError) as error:
            raise DataLoss(f"layer cannot be decompressed: {error}") from None
        self.count += len(chunk)
        if self.count > self._limit:
            raise ResourceExhausted(f"layer is larger than {self._limit} bytes uncompressed")
        self._hash.update(chunk)
        return chunk


@dataclass(slots=True)
class Entry:
    """One tar member. `size` bytes of content follow for a regular file only; times in nanoseconds."""

    name: str
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: str = ""
    major: int = 0
    minor: int = 0
    xattrs: dict[str, bytes] = field(default_factory=dict)


class TarReader:
    """Iterates over the entries of a stream; content not read through `copy` is skipped."""

    def __init__(self, stream: LayerStream) -> None:
        self._stream = stream
        self._left = 0
        self._padding = 0
        self._extensions = 0

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry

    def copy(self, write: Callable[[memoryview], None]) -> None:
        """Hand the current entry's content to `write` in pieces."""
        while self._left:
            part = self._stream.read(self._left)
            if not part:
                raise DataLoss(f"layer ends {self._left} bytes short, in the middle of a file")
            write(part)
            self._left -= len(part)

    def _next(self) -> Entry | None:
        self.copy(lambda _: None)
        self._skip(self._padding)
        self._padding = 0
        pax: dict[bytes, bytes] = {}
        names: dict[bytes, bytes] = {}
        self._extensions = 0
        while (header := self._header()) is not None:
            kind, size = header[156:157], _number(header[124:136], "size")
            if kind == b"g":
                self._extension(size)
            elif kind in b"xX":
                pax.update(_pax_records(self._extension(size)))
            elif kind in b"LK":
                names[kind] = self._extension(size).rstrip(b"\0")
            else:
                return self._entry(header, kind, size, pax, names)
        if pax or names:
            raise DataLoss("layer ends behind an extension header")
        return None

    def _header(self) -> bytes | None:
        first = self._stream.read(BLOCK)
        if not first:
            return None
        block = bytes(first) + (self._stream.exactly(BLOCK - len(first)) if len(first) < BLOCK else b"")
        if block == _ZERO:
            return None
        if not is_header(block):
            raise DataLoss("layer is not a tar archive: wrong header checksum")
        return block

    def _extension(self, size: int) -> bytes:
        self._extensions += size
        if self._extensions > _HEADER_LIMIT:
            raise ResourceExhausted(f"tar extension headers of one entry exceed {_HEADER_LIMIT} bytes")
        content = self._stream.exactly(size)
        self._skip(-size % BLOCK)
        return content

    def _entry(
        self, header: bytes, kind: bytes, size: int, pax: dict[bytes, bytes], names: dict[bytes, bytes]
    ) -> Entry:
        name = pax.get(b"path") or names.get(b"L") or _stored_name(header)
        link = pax.get(b"linkpath") or names.get(b"K") or _text(header[157:257])
        kind = REGULAR if kind in (b"\0", b"7") else kind
        if kind == REGULAR and name.endswith(b"/"):
            kind = DIRECTORY
        if kind == b"S" or any(key.startswith(b"GNU.sparse.") for key in pax):
            raise InvalidArgument(f"layer entry {os.fsdecode(name)!r}: sparse members are not supported")
        if kind not in _KNOWN:
            raise InvalidArgument(f"layer entry {os.fsdecode(name)!r}: unknown type {kind!r}")
        if b"\0" in name or b"\0" in link:
            raise InvalidArgument(f"layer entry {os.fsdecode(name)!r}: NUL in a name")
        size = _decimal(pax[b"size"], "size") if b"size" in pax else size
        size = size if kind == REGULAR else 0
        self._left, self._padding = size, -size % BLOCK
        device = kind in (CHAR, BLOCK_DEVICE)
        return Entry(
            name=os.fsdecode(name),
            kind=kind,
            mode=_number(header[100:108], "mode") & 0o7777,
            uid=_owner(pax.get(b"uid"), header[108:116], "uid"),
            gid=_owner(pax.get(b"gid"), header[116:124], "gid"),
            size=size,
            mtime_ns=_time(pax.get(b"mtime"), header[136:148]),
            link=os.fsdecode(link),
            major=_number(header[329:337], "device") if device else 0,
            minor=_number(header[337:345], "device") if device else 0,
            xattrs=_xattrs(pax),
        )

    def _skip(self, size: int) -> None:
        while size:
            part = self._stream.read(size)
            if not part:
                return  # some writers leave the last padding out
            size -= len(part)


def is_header(block: bytes) -> bool:
    """Whether 512 bytes carry their own checksum, as every tar header does (tar(5))."""
    total = sum(block) - sum(block[148:156]) + 8 * 32
    signed = total - 256 * sum(1 for byte in block[:148] + block[156:] if byte > 127)
    try:
        return _number(block[148:156], "checksum") in (total, signed)
    except DataLoss:
        return False


def _stored_name(header: bytes) -> bytes:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _text(field_: bytes) -> bytes:
    return field_.partition(b"\0")[0]


def _number(field_: bytes, what: str) -> int:
    """Octal, or base 256 when the top bit is set (GNU); raises DataLoss. Never negative but for times."""
    if field_[0] & 0x80:
        value = int.from_bytes(field_, "big", signed=True)
        value = value if field_[0] == 0xFF else value + (1 << (8 * len(field_) - 1))
    else:
        digits = field_.partition(b"\0")[0].strip()
        if not all(48 <= digit <= 55 for digit in digits):
            raise DataLoss(f"tar header: {what} {digits!r} is not octal")
        value = int(digits or b"0", 8)
    if value < 0 and what != "mtime":
        raise DataLoss(f"tar header: {what} {value} is negative")
    return value


def _decimal(value: bytes, what: str) -> int:
    if not value.isdigit() or len(value) > 20:
        raise DataLoss(f"tar header: {what} {value[:40]!r} is not a number")
    return int(value)


def _owner(pax: bytes | None, header: bytes, what: str) -> int:
    owner = _decimal(pax, what) if pax else _number(header, what)
    if owner >= 0xFFFFFFFF:  # (uid_t) -1 would mean "leave as it is" to chown(2)
        raise DataLoss(f"tar header: {what} {owner} is out of range")
    return owner


def _time(pax: bytes | None, header: bytes) -> int:
    """Nanoseconds, bounded to what every file system can hold (1901 … 2446)."""
    if not pax:
        nanoseconds = _number(header, "mtime") * 10**9
    else:
        whole, _, fraction = pax[:64].partition(b".")
        sign = -1 if whole.startswith(b"-") else 1
        digits = whole.removeprefix(b"-") or b"0"
        nanoseconds = sign * (
            _decimal(digits, "mtime") * 10**9 + _decimal(fraction[:9].ljust(9, b"0"), "mtime")
        )
    return min(max(nanoseconds, -(1 << 31) * 10**9), 15_032_385_535 * 10**9)


def _pax_records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """`<length> <key>=<value>\\n` records; the value is raw bytes."""
    position = 0
    while position < len(content):
        digits, space, _ = content[position : position + 20].partition(b" ")
        if not space or not digits.isdigit():
            raise DataLoss("tar PAX header: a record has no length")
        end = position + int(digits)
        record = content[position + len(digits) + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if end > len(content) or not equals or record[-1:] != b"\n":
            raise DataLoss("tar PAX header: a record is malformed")
        yield key, value
        position = end


def _xattrs(pax: dict[bytes, bytes]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for key, value in pax.items():
        if key.startswith(b"LIBARCHIVE.xattr."):
            name = os.fsdecode(unquote_to_bytes(key.removeprefix(b"LIBARCHIVE.xattr.")))
            try:
                found[name] = base64.b64decode(value + b"=" * (-len(value) % 4))
            except ValueError:
                raise DataLoss(f"tar PAX header: attribute {name!r} is not base64") from None
    for key, value in pax.items():
        if key.startswith(b"SCHILY.xattr."):
            found[os.fsdecode(key.removeprefix(b"SCHILY.xattr."))] = value
    if any("\0" in name for name in found):
        raise DataLoss("tar PAX header: NUL in the name of an attribute")
    return found

"""Layer archives as a stream: sniffed decompression, a running digest, and a tar reader.

Not Python's `tarfile`, which reads extension headers of any claimed size into memory and decodes extended
attributes as text. Formats: v7, ustar, star, PAX and GNU (pax(1), tar(5)), including sparse members. Names
are decoded as by os.fsdecode.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

import zstandard

from phantom_cri.errors import DataLoss, InvalidArgument, ResourceExhausted
from phantom_cri.images.sparse import Sparse, check, from_old_header, from_pax
from phantom_cri.images.tarheader import (
    BLOCK,
    decimal,
    device_number,
    is_header,
    number,
    owner,
    pax_records,
    stored_name,
    text,
    time,
    xattrs,
)

_CHUNK = 256 << 10
_HEADER_LIMIT = 1 << 20  # for all PAX and long-name headers of one entry; in Go's archive/tar for each header
_ZSTD_WINDOW = 128 << 20
_ZERO = bytes(BLOCK)

REGULAR, HARDLINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_KNOWN = frozenset({REGULAR, HARDLINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO})
_OLD_SPARSE = b"S"
_REGULARS = (REGULAR, b"7", _OLD_SPARSE)  # 7: contiguous, which POSIX treats as regular


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def decompressed(source: BinaryIO) -> Readable:
    """The tar in `source`, decompressed by its content: the media type is not trusted."""
    magic = source.read(4)
    source.seek(0)
    if magic[:3] == b"\x1f\x8b\x08":
        return _Gzip(source)
    if magic == b"\x28\xb5\x2f\xfd" or (magic[1:] == b"\x2a\x4d\x18" and magic[0] & 0xF0 == 0x50):
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        return decompressor.stream_reader(source, read_size=_CHUNK, read_across_frames=True, closefd=False)
    return source


class _Gzip:
    """All members of a gzip file; never holds more than one chunk of output, against bombs."""

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
        self._holes = 0

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
        """DiffID of the whole stream, read to its end, including padding after the archive."""
        while self.read(_CHUNK):
            pass
        return f"sha256:{self._hash.hexdigest()}"

    def charge(self, holes: int) -> None:
        """Count bytes of files that are not in the archive. Raises ResourceExhausted."""
        self._holes += holes
        self._check_limit()

    def _check_limit(self) -> None:
        if self.count + self._holes > self._limit:
            raise ResourceExhausted(f"layer is larger than {self._limit} bytes uncompressed")

    def _fill(self) -> bytes:
        try:
            chunk = self._source.read(_CHUNK)
        except (zlib.error, zstandard.ZstdError) as error:
            raise DataLoss(f"layer cannot be decompressed: {error}") from None
        self.count += len(chunk)
        self._check_limit()
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
        self._size = 0
        self._segments: tuple[tuple[int, int], ...] = ()

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry

    def copy(self, write: Callable[[memoryview], None], leave: Callable[[int], None] | None = None) -> None:
        """Pass the current entry's content to `write` in pieces, and holes to `leave`, or else as zeros."""
        position = 0
        for offset, length in self._segments:
            if offset > position:
                _hole(offset - position, write, leave)
            self._read(length, write)
            position = offset + length
        if self._size > position:
            _hole(self._size - position, write, leave)
        self._segments, self._size = (), 0

    def _read(self, size: int, write: Callable[[memoryview], None]) -> None:
        while size:
            part = self._stream.read(size)
            if not part:
                raise DataLoss(f"layer ends {size} bytes short, in the middle of a file")
            write(part)
            size -= len(part)
            self._left -= len(part)

    def _next(self) -> Entry | None:
        self._read(self._left, lambda _: None)
        self._skip(self._padding)
        self._padding = 0
        pax: dict[bytes, bytes] = {}
        names: dict[bytes, bytes] = {}
        self._extensions = 0
        while (header := self._header()) is not None:
            kind, size = header[156:157], number(header[124:136], "size")
            if kind == b"g":
                self._extension(size)
            elif kind in b"xX":
                pax = pax_records(self._extension(size))
            elif kind in b"LK":
                names[kind] = text(self._extension(size))
            else:
                return self._entry(header, kind, size, pax, names)
        if pax or names:
            raise DataLoss("layer ends after an extension header")
        return None

    def _header(self) -> bytes | None:
        """None at the end: end of file, one block of zeros and end of file, or two blocks of zeros."""
        block = self._block()
        if block == _ZERO:
            block = self._block()
            if block is not None and block != _ZERO:
                raise DataLoss("layer has a block of zeros between its entries")
            return None
        if block is not None and not is_header(block):
            raise DataLoss("layer is not a tar archive: wrong header checksum")
        return block

    def _block(self) -> bytes | None:
        first = self._stream.read(BLOCK)
        if not first:
            return None
        return bytes(first) + (self._stream.exactly(BLOCK - len(first)) if len(first) < BLOCK else b"")

    def _extension(self, size: int) -> bytes:
        self._count_extension(size)
        content = self._stream.exactly(size)
        self._skip(-size % BLOCK)
        return content

    def _count_extension(self, size: int) -> None:
        self._extensions += size
        if self._extensions > _HEADER_LIMIT:
            raise ResourceExhausted(f"tar extension headers of one entry exceed {_HEADER_LIMIT} bytes")

    def _entry(
        self, header: bytes, kind: bytes, size: int, pax: dict[bytes, bytes], names: dict[bytes, bytes]
    ) -> Entry:
        name = names.get(b"L") or pax.get(b"path") or stored_name(header)
        link = names.get(b"K") or pax.get(b"linkpath") or text(header[157:257])
        if kind == b"\0":
            kind = DIRECTORY if name.endswith(b"/") else REGULAR
        old_sparse, kind = kind == _OLD_SPARSE, REGULAR if kind in _REGULARS else kind
        if kind not in _KNOWN:
            raise InvalidArgument(f"layer entry {os.fsdecode(name)!r}: unknown type {kind!r}")
        size = decimal(pax[b"size"], "size") if pax.get(b"size") else size
        size = size if kind == REGULAR else 0
        self._left, self._padding = size, -size % BLOCK
        if (sparse := self._sparse(header, pax, size, old=old_sparse)) is None:
            self._size, self._segments = size, ((0, size),)
        else:
            self._expect_sparse(sparse, kind)
            name = name if old_sparse else pax.get(b"GNU.sparse.name") or name
        if b"\0" in name or b"\0" in link:
            raise InvalidArgument(f"layer entry {os.fsdecode(name)!r}: NUL in a name")
        device = kind in (CHAR, BLOCK_DEVICE)
        return Entry(
            name=os.fsdecode(name),
            kind=kind,
            mode=number(header[100:108], "mode") & 0o7777,
            uid=owner(pax.get(b"uid"), header[108:116], "uid"),
            gid=owner(pax.get(b"gid"), header[116:124], "gid"),
            size=self._size,
            mtime_ns=time(pax.get(b"mtime"), header[136:148]),
            link=os.fsdecode(link),
            major=device_number(header[329:337], "device major", 12) if device else 0,
            minor=device_number(header[337:345], "device minor", 20) if device else 0,
            xattrs=xattrs(pax),
        )

    def _sparse(self, header: bytes, pax: dict[bytes, bytes], size: int, *, old: bool) -> Sparse | None:
        if old:
            return from_old_header(header, self._map_block)
        return from_pax(pax, size, self._stored_map_block) if pax else None

    def _expect_sparse(self, sparse: Sparse, kind: bytes) -> None:
        if kind != REGULAR:
            raise DataLoss("tar header: sparse member that is no file")
        check(sparse, self._left)
        self._stream.charge(sparse.size - self._left)
        self._size, self._segments = sparse.size, sparse.segments

    def _map_block(self) -> bytes:
        self._count_extension(BLOCK)
        return self._stream.exactly(BLOCK)

    def _stored_map_block(self) -> bytes:
        """A block of the sparse map that precedes a member's content."""
        if self._left < BLOCK:
            raise DataLoss("tar header: sparse map is longer than its member")
        self._left -= BLOCK
        return self._map_block()

    def _skip(self, size: int) -> None:
        while size:
            part = self._stream.read(size)
            if not part:
                return  # some writers omit the last padding
            size -= len(part)


def _hole(size: int, write: Callable[[memoryview], None], leave: Callable[[int], None] | None) -> None:
    if leave is not None:
        leave(size)
        return
    zeros = memoryview(bytes(min(size, _CHUNK)))
    while size:
        write(zeros[:size])
        size -= min(size, _CHUNK)

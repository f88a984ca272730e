"""Archives byte by byte, for what `tarfile` does not write. Layout: POSIX ustar, PAX, and GNU tar's own."""

from __future__ import annotations

from typing import Any

BLOCK = 512
END = bytes(2 * BLOCK)
USTAR, GNU, V7 = b"ustar\x0000", b"ustar  \0", bytes(8)


def number(value: int | bytes, width: int) -> bytes:
    """Octal digits with a NUL behind; bytes are taken as they are."""
    return value if isinstance(value, bytes) else b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int) -> bytes:
    """GNU's way to write what octal digits cannot: the top bit of the first byte says so."""
    if value < 0:
        return value.to_bytes(width, "big", signed=True)
    return b"\x80" + value.to_bytes(width - 1, "big")


def member(name: bytes, content: bytes = b"", kind: bytes = b"0", **header: Any) -> bytes:
    """A member with its content.

    `header`: size, mode, uid, gid, mtime, link, major, minor, magic, and tail (bytes from 345 on).
    """
    fields = [
        name[:100].ljust(100, b"\0"),
        number(header.get("mode", 0o644), 8),
        number(header.get("uid", 0), 8),
        number(header.get("gid", 0), 8),
        number(header.get("size", len(content)), 12),
        number(header.get("mtime", 0), 12),
        b" " * 8,
        kind,
        header.get("link", b"")[:100].ljust(100, b"\0"),
        header.get("magic", USTAR),
        bytes(32 + 32),
        number(header.get("major", 0), 8),
        number(header.get("minor", 0), 8),
        header.get("tail", b"").ljust(167, b"\0"),
    ]
    block = b"".join(fields)
    assert len(block) == BLOCK, len(block)
    checksum = b"%06o\0 " % sum(block)
    return block[:148] + checksum + block[156:] + padded(content)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def pax(*records: tuple[str, bytes | str], kind: bytes = b"x") -> bytes:
    """An extension header for the next member, or with kind g for all that follow."""
    content = b""
    for key, value in records:
        rest = b" " + key.encode() + b"=" + (value.encode() if isinstance(value, str) else value) + b"\n"
        size = len(rest) + 1
        while len(str(size)) + len(rest) != size:
            size = len(str(size)) + len(rest)
        content += str(size).encode() + rest
    return member(b"pax", content, kind)


def archive(*members: bytes) -> bytes:
    return b"".join(members) + END


# A file of 8196 bytes: "head", a hole, "tail".
SPARSE_DATA = b"headtail"


def sparse_pax_0_1(name: str) -> bytes:
    records = (
        ("GNU.sparse.size", "8196"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.map", "0,4,8192,4"),
        ("GNU.sparse.name", name),
    )
    return archive(pax(*records), member(b"GNUSparseFile.0/f", SPARSE_DATA))


def sparse_pax_0_0(name: str) -> bytes:
    records = (
        ("GNU.sparse.size", "8196"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.offset", "0"),
        ("GNU.sparse.numbytes", "4"),
        ("GNU.sparse.offset", "8192"),
        ("GNU.sparse.numbytes", "4"),
    )
    return archive(pax(*records), member(name.encode(), SPARSE_DATA))


def sparse_pax_1_0(name: str) -> bytes:
    records = (
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", name),
        ("GNU.sparse.realsize", "8196"),
    )
    content = padded(b"2\n0\n4\n8192\n4\n") + SPARSE_DATA
    return archive(pax(*records), member(b"GNUSparseFile.0/f", content))


def sparse_gnu(name: str) -> bytes:
    """The map lies in the header: 4 × (offset, bytes), whether there is more, the real size (tar(5))."""
    chunks = b"".join(number(value, 12) for value in (0, 4, 8192, 4)) + bytes(48)
    times_and_offset = bytes(12 + 12 + 12 + 4 + 1)
    tail = times_and_offset + chunks + b"\0" + number(8196, 12)
    return archive(member(name.encode(), SPARSE_DATA, b"S", magic=GNU, tail=tail))

"""The fields of a tar header: v7, ustar, star, PAX and GNU (pax(1), tar(5)).

They are read as in Go's archive/tar, with which most images are read.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from phantom_cri.errors import DataLoss

BLOCK = 512
_LAST_SECOND = 15_032_385_535  # of ext4: the year 2446
_XATTR, _LIBARCHIVE_XATTR = b"SCHILY.xattr.", b"LIBARCHIVE.xattr."


def is_header(block: bytes) -> bool:
    """Whether 512 bytes have a valid checksum, of unsigned or (Sun's tar) signed bytes."""
    total = sum(block) - sum(block[148:156]) + 8 * 32
    signed = total - 256 * sum(1 for byte in block[:148] + block[156:] if byte > 127)
    try:
        return number(block[148:156], "checksum") in (total, signed)
    except DataLoss:
        return False


def stored_name(header: bytes) -> bytes:
    name, prefix = text(header[:100]), b""
    if header[257:263] == b"ustar\0":
        is_star = header[508:512] == b"tar\0"  # star(1) stores times after a shorter prefix
        prefix = text(header[345 : 476 if is_star else 500])
    elif header[257:265] == b"ustar  \0" and not _are_times(header[345:369]):
        prefix = text(header[345:500])  # Go before 1.8, golang.org/issue/12594
        prefix = prefix if prefix.isascii() else b""
    return prefix + b"/" + name if prefix else name


def text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def number(field: bytes, what: str) -> int:
    """Octal, or base 256 if the top bit is set (GNU); raises DataLoss. Only times may be negative."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=True)
        value = value if field[0] == 0xFF else value + (1 << (8 * len(field) - 1))
    else:
        digits = text(field.strip(b" \0"))
        if not all(48 <= digit <= 55 for digit in digits):
            raise DataLoss(f"tar header: {what} {digits!r} is not octal")
        value = int(digits or b"0", 8)
    if value < 0 and what != "mtime":
        raise DataLoss(f"tar header: {what} {value} is negative")
    return value


def decimal(value: bytes, what: str) -> int:
    if not value.isdigit() or len(value) > 20:
        raise DataLoss(f"tar header: {what} {value[:40]!r} is not a number")
    return int(value)


def device_number(field: bytes, what: str, bits: int) -> int:
    """Raises DataLoss for a number that does not fit the kernel's dev_t."""
    value = number(field, what)
    if value >= 1 << bits:
        raise DataLoss(f"tar header: {what} {value} is out of range")
    return value


def owner(pax: bytes | None, field: bytes, what: str) -> int:
    value = decimal(pax, what) if pax else number(field, what)
    if value >= 0xFFFFFFFF:  # (uid_t) -1 means "do not change" in chown(2)
        raise DataLoss(f"tar header: {what} {value} is out of range")
    return value


def time(pax: bytes | None, field: bytes) -> int:
    """Nanoseconds, limited to what every file system supports (1901 … 2446)."""
    if not pax:
        nanoseconds = number(field, "mtime") * 10**9
    else:
        whole, _, fraction = pax[:64].partition(b".")
        sign = -1 if whole.startswith(b"-") else 1
        digits = whole.removeprefix(b"-") or b"0"
        nanoseconds = sign * (
            decimal(digits, "mtime") * 10**9 + decimal(fraction[:9].ljust(9, b"0"), "mtime")
        )
    return min(max(nanoseconds, -(1 << 31) * 10**9), _LAST_SECOND * 10**9)


def pax_records(content: bytes) -> dict[bytes, bytes]:
    """Raw values of a PAX header; the pairs of GNU sparse format 0.0 become the map of 0.1.

    Empty values are kept, although a header field overrides them. Raises DataLoss.
    """
    records: dict[bytes, bytes] = {}
    pairs: list[bytes] = []
    for key, value in _records(content):
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            if (key == b"GNU.sparse.offset") != (len(pairs) % 2 == 0):
                raise DataLoss("tar PAX header: sparse offsets and lengths do not alternate")
            pairs.append(value)
        else:
            records[key] = value
    if pairs:
        records[b"GNU.sparse.map"] = b",".join(pairs)
    return records


def xattrs(pax: dict[bytes, bytes]) -> dict[str, bytes]:
    """Extended attributes of a PAX header. star wins over libarchive, whose invalid base64 is ignored."""
    found: dict[str, bytes] = {}
    for key, value in pax.items():
        if key.startswith(_LIBARCHIVE_XATTR):
            name = os.fsdecode(unquote_to_bytes(key.removeprefix(_LIBARCHIVE_XATTR)))
            try:
                found[name] = base64.b64decode(value + b"=" * (-len(value) % 4))
            except ValueError:
                continue
    for key, value in pax.items():
        if key.startswith(_XATTR):
            found[os.fsdecode(key.removeprefix(_XATTR))] = value
    if any("\0" in name for name in found):
        raise DataLoss("tar PAX header: NUL in the name of an attribute")
    return found


def _are_times(field: bytes) -> bool:
    """Whether the field has GNU's atime and ctime, or is empty."""
    try:
        for part in (field[:12], field[12:]):
            if part[0]:
                number(part, "mtime")
    except DataLoss:
        return False
    return True


def _records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """`<length> <key>=<value>\\n` records; the value is raw bytes."""
    position = 0
    while position < len(content):
        digits, space, _ = content[position : position + 20].partition(b" ")
        if not space or not digits.isdigit():
            raise DataLoss("tar PAX header: a record has no length")
        end = position + int(digits)
        record = content[position + len(digits) + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if end > len(content) or not equals or not key or record[-1:] != b"\n":
            raise DataLoss("tar PAX header: a record is malformed")
        yield key, value
        position = end

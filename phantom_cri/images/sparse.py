"""Maps of sparse tar members (GNU tar manual, "Sparse Formats").

Maps are hostile input: their size is bounded by the caller's limit for headers, segments have to be in order
and inside the file, and their total size has to be that of the content in the archive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from phantom_cri.errors import DataLoss
from phantom_cri.images.tarheader import decimal, number

_GNU = b"GNU.sparse."
_PAIR = 24  # bytes of an offset and a length in old GNU headers
_SIZE_LIMIT = 1 << 63  # of an off_t


@dataclass(frozen=True, slots=True)
class Sparse:
    """`size` of the file, holes included; `segments` of content: offset and length."""

    size: int
    segments: tuple[tuple[int, int], ...]


def from_old_header(header: bytes, block: Callable[[], bytes]) -> Sparse:
    """From a member of type `S`. `block` reads one more block of the archive, up to a limit."""
    if header[257:265] != b"ustar  \0":  # star's type S has another layout
        raise DataLoss("tar header: sparse member in another format than GNU's")
    pairs = list(_pairs(header[386:482]))
    more = header[482]
    while more:
        extension = block()
        pairs += _pairs(extension[:504])
        more = extension[504]
    return Sparse(number(header[483:495], "real size"), tuple(pairs))


def from_pax(pax: Mapping[bytes, bytes], size: int, block: Callable[[], bytes]) -> Sparse | None:
    """Formats 0.0 (with a joined map), 0.1, and 1.0, whose map is in the first blocks of the content.

    None: not sparse, or of an unknown version, which is treated as an ordinary file, as in Go.
    """
    version = pax.get(_GNU + b"major", b""), pax.get(_GNU + b"minor", b"")
    if version == (b"1", b"0"):
        numbers = _leading_map(block)
    elif version in ((b"0", b"0"), (b"0", b"1")) or (version == (b"", b"") and pax.get(_GNU + b"map")):
        texts = pax.get(_GNU + b"map", b"").split(b",")
        numbers = [decimal(text, "sparse map") for text in texts if texts != [b""]]
        if len(numbers) != 2 * decimal(pax.get(_GNU + b"numblocks", b""), "GNU.sparse.numblocks"):
            raise DataLoss("tar header: sparse map is not as long as it says")
    else:
        return None
    stated = pax.get(_GNU + b"size") or pax.get(_GNU + b"realsize")
    real = decimal(stated, "real size") if stated else size
    return Sparse(real, tuple(zip(numbers[::2], numbers[1::2], strict=True)))


def check(sparse: Sparse, stored: int) -> None:
    """Raises DataLoss unless the segments are in order, in the file, and `stored` bytes in all."""
    if sparse.size >= _SIZE_LIMIT:
        raise DataLoss(f"tar header: real size {sparse.size} is out of range")
    end = 0
    for offset, length in sparse.segments:
        if offset < end or offset + length > sparse.size:
            raise DataLoss("tar header: segments of a sparse map overlap or lie outside the file")
        end = offset + length
    content = sum(length for _, length in sparse.segments)
    if content != stored:
        raise DataLoss(f"tar header: sparse map has {content} bytes of content, the archive {stored}")


def _pairs(field: bytes) -> Iterable[tuple[int, int]]:
    for start in range(0, len(field), _PAIR):
        if field[start] == 0:
            return
        yield (
            number(field[start : start + 12], "sparse map"),
            number(field[start + 12 : start + 24], "sparse map"),
        )


def _leading_map(block: Callable[[], bytes]) -> list[int]:
    """Decimal numbers, each with a newline; the first is the number of pairs."""
    first = block()
    wanted = 1 + 2 * decimal(first.partition(b"\n")[0], "sparse map")
    content, lines = bytearray(first), first.count(b"\n")
    while lines < wanted:
        more = block()
        lines += more.count(b"\n")
        content += more
    return [decimal(line, "sparse map") for line in bytes(content).split(b"\n", wanted)[1:wanted]]

"""Tar headers byte by byte: what Go's archive/tar reads is read alike, and the rest is refused."""

from __future__ import annotations

import io
import os
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from phantom_cri.errors import DataLoss, InvalidArgument, PhantomError, ResourceExhausted
from phantom_cri.images.layertar import DIRECTORY, REGULAR, SYMLINK, Entry, LayerStream, TarReader

END = bytes(1024)


def block(name: bytes = b"f", kind: bytes = b"0", size: int = 0, fields: Mapping[int, bytes] = {}) -> bytes:
    """A ustar header; `fields` overwrites bytes at offsets before the checksum is made."""
    header = bytearray(512)
    start = {0: name, 100: b"0000644\0", 124: b"%011o\0" % size, 156: kind, 257: b"ustar\x0000"}
    for offset, value in {**start, **fields}.items():
        header[offset : offset + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def member(header: bytes, content: bytes) -> bytes:
    return header + padded(content)


def record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return str(length).encode() + rest


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    body = b"".join(record(key, value) for key, value in records)
    return member(block(b"PaxHeaders/f", kind, len(body)), body)


def read(archive: bytes, limit: int = 1 << 20) -> list[tuple[Entry, bytes]]:
    reader = TarReader(LayerStream(io.BytesIO(archive), limit))
    found = []
    for entry in reader:
        content = bytearray()
        reader.copy(lambda part, into=content: into.extend(part))  # type: ignore[misc]
        found.append((entry, bytes(content)))
    return found


def one(archive: bytes) -> Entry:
    [(entry, _)] = read(archive)
    return entry


# Fields


@pytest.mark.parametrize(
    ("offset", "field", "name", "value"),
    [
        (108, b"0001750\0", "uid", 1000),
        (108, b"\0\0001750\0", "uid", 1000),
        (108, b"   1750 ", "uid", 1000),
        (108, b"00017500", "uid", 0o17500),
        (108, bytes(8), "uid", 0),
        (108, b"\x80\0\0\0\xff\xff\xff\xfe", "uid", 4294967294),
        (116, b"\x80\0\0\0\x80\0\0\0", "gid", 1 << 31),
        (136, b"\xff" * 12, "mtime_ns", -(10**9)),
        (136, b"\x80" + b"\xff" * 11, "mtime_ns", 15_032_385_535 * 10**9),
        (100, b"0104755\0", "mode", 0o4755),
    ],
)
def test_numbers(offset: int, field: bytes, name: str, value: int) -> None:
    assert getattr(one(block(fields={offset: field}) + END), name) == value


@pytest.mark.parametrize(
    ("offset", "field"),
    [
        (108, b"0000008\0"),
        (108, b"-000001\0"),
        (108, b"\xff" * 8),
        (108, b"\x80\0\0\0\xff\xff\xff\xff"),
        (108, b"\x80\0\0\1\0\0\0\0"),
        (124, b"\xff" * 12),
    ],
)
def test_numbers_that_are_none(offset: int, field: bytes) -> None:
    with pytest.raises(DataLoss):
        read(block(fields={offset: field}) + END)


def test_a_device_beyond_the_kernels_numbers() -> None:
    with pytest.raises(DataLoss, match="device major 1048576"):
        read(block(kind=b"3", fields={329: b"4000000\0"}) + END)


@pytest.mark.parametrize("signed", [False, True])
def test_checksums_of_signed_and_unsigned_bytes(signed: bool) -> None:
    header = bytearray(block("é".encode()))
    header[148:156] = b" " * 8
    total = sum(header) - (256 * sum(byte > 127 for byte in header) if signed else 0)
    header[148:156] = b"%06o\0 " % total
    assert one(bytes(header) + END).name == "é"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({345: b"prefix"}, "prefix/f"),
        ({345: b"p" * 155}, "p" * 155 + "/f"),
        ({345: b"p" * 131 + b"00000000000\0" * 2, 508: b"tar\0"}, "p" * 131 + "/f"),
        ({257: b"ustar  \0", 345: b"%011o\0" % 7}, "f"),
        ({257: b"ustar  \0", 345: b"prefix/of/go1.7"}, "prefix/of/go1.7/f"),
        ({257: b"ustar  \0", 345: b"\xc3\xa9tranger"}, "f"),
        ({257: bytes(8), 345: b"prefix"}, "f"),
    ],
    ids=["ustar", "full", "star", "GNU times", "GNU of old Go", "not ASCII", "v7"],
)
def test_prefixes(fields: Mapping[int, bytes], name: str) -> None:
    assert one(block(fields=fields) + END).name == name


def test_an_old_folder_ends_in_a_slash() -> None:
    assert one(block(b"d/", b"\0") + END).kind == DIRECTORY
    assert one(block(b"d", b"\0") + END).kind == REGULAR
    assert one(block(b"d/", b"0") + END).kind == REGULAR


def test_contiguous_files_are_files() -> None:
    [(entry, content)] = read(member(block(kind=b"7", size=3), b"abc") + END)
    assert (entry.kind, content) == (REGULAR, b"abc")


@pytest.mark.parametrize("kind", [b"V", b"M", b"N", b"D", b"Z", b"8"])
def test_unknown_types(kind: bytes) -> None:
    with pytest.raises(InvalidArgument, match="unknown type"):
        read(block(kind=kind) + END)


# Extension headers


def test_pax_overrides() -> None:
    archive = pax(
        (b"path", "ä/long".encode()),
        (b"size", b"3"),
        (b"uid", b"3000000000"),
        (b"gid", b"7"),
        (b"mtime", b"-1.5"),
        (b"SCHILY.xattr.user.empty", b""),
        (b"comment", b"\xff\0"),
    )
    [(entry, content)] = read(archive + member(block(size=0), b"abc") + END)
    assert (entry.name, content, entry.uid, entry.gid) == ("ä/long", b"abc", 3_000_000_000, 7)
    assert entry.mtime_ns == -1_500_000_000
    assert entry.xattrs == {"user.empty": b""}


def test_an_empty_pax_value_leaves_the_headers() -> None:
    keys = (b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime")
    fields = {108: b"0000005\0", 116: b"0000006\0", 136: b"%011o\0" % 9}
    [(entry, content)] = read(
        pax(*((key, b"") for key in keys)) + member(block(size=3, fields=fields), b"abc") + END
    )
    assert (entry.name, content, entry.uid, entry.gid, entry.mtime_ns) == ("f", b"abc", 5, 6, 9 * 10**9)


def test_the_last_pax_header_and_the_last_record_count() -> None:
    archive = pax((b"uid", b"1"), (b"gid", b"1")) + pax((b"gid", b"2"), (b"gid", b"3")) + block() + END
    assert (one(archive).uid, one(archive).gid) == (0, 3)


def test_a_global_header_is_no_entry_and_sets_nothing() -> None:
    assert one(pax((b"uid", b"7"), (b"path", b"x"), kind=b"g") + block() + END).uid == 0
    assert read(pax((b"comment", b"commit"), kind=b"g") + END) == []


def test_suns_header_is_pax() -> None:
    assert one(pax((b"path", b"sun"), kind=b"X") + block() + END).name == "sun"


def test_gnu_names_win_and_end_at_a_nul() -> None:
    long_name = member(block(b"L", b"L", 9), b"long\0tail")
    names = long_name + member(block(b"K", b"K", 7), b"target\0")
    entry = one(pax((b"path", b"pax"), (b"linkpath", b"pax")) + names + block(kind=SYMLINK) + END)
    assert (entry.name, entry.link) == ("long", "target")


@pytest.mark.parametrize(
    "body", [b"9 =value\n", b"8 a=bcd", b"7 a=b\n", b"-1 a=b\n", b"6\ta=b\n", b"5 ab\n", b"99999999999 a=b\n"]
)
def test_malformed_records(body: bytes) -> None:
    with pytest.raises(DataLoss, match="PAX header"):
        read(member(block(kind=b"x", size=len(body)), body) + block() + END)


def test_bad_base64_of_libarchive_is_ignored() -> None:
    archive = pax((b"LIBARCHIVE.xattr.user.a", b"a"), (b"SCHILY.xattr.user.b", b"\0\xff")) + block() + END
    assert one(archive).xattrs == {"user.b": b"\0\xff"}


# Where an archive ends


@pytest.mark.parametrize("end", [b"", bytes(512), END, END + b"garbage" * 200, END + block(b"second") + END])
def test_ends(end: bytes) -> None:
    assert one(block() + end).name == "f"


@pytest.mark.parametrize("end", [bytes(512) + block(b"second") + END, bytes(100), bytes(700), block()[:100]])
def test_ends_that_are_none(end: bytes) -> None:
    with pytest.raises(DataLoss):
        read(block() + end)


def test_the_last_padding_may_lack() -> None:
    assert read(block(size=3) + b"abc")[0][1] == b"abc"


# Sparse members

GNU = {257: b"ustar  \0"}
DATA = b"a" * 512 + b"b" * 512


def old_sparse(pairs: list[tuple[int, int]], real: int, content: bytes, more: bytes = b"") -> bytes:
    fields = {386: b"".join(b"%011o\0%011o\0" % pair for pair in pairs), 482: b"\1" if more else b"\0"}
    header = block(kind=b"S", size=len(content), fields={**GNU, **fields, 483: b"%011o\0" % real})
    return member(header + more, content)


def pax_sparse(version: str, map_: bytes, real: bytes, content: bytes, blocks: int) -> bytes:
    major, minor = version.encode().split(b".")
    records = [
        (b"GNU.sparse.major", major),
        (b"GNU.sparse.minor", minor),
        (b"GNU.sparse.name", b"real/name"),
        (b"GNU.sparse.realsize", real),
    ]
    if version == "1.0":
        stored = padded(map_) + content
        return pax(*records) + member(block(size=len(stored)), stored)
    more = [(b"GNU.sparse.numblocks", b"%d" % blocks), (b"GNU.sparse.map", map_)]
    return pax(*records, *more) + member(block(size=len(content)), content)


def test_old_gnu_sparse_with_more_blocks() -> None:
    extension = b"%011o\0%011o\0" % (2048, 512)
    archive = old_sparse([(512, 512)], 4096, DATA, extension.ljust(512, b"\0"))
    [(entry, content), (after, _)] = read(archive + block(b"after") + END)
    assert (entry.size, after.name) == (4096, "after")
    assert content == bytes(512) + b"a" * 512 + bytes(1024) + b"b" * 512 + bytes(1536)


@pytest.mark.parametrize(
    ("version", "map_"), [("0.1", b"512,512,2048,512"), ("1.0", b"2\n512\n512\n2048\n512\n")]
)
def test_pax_sparse(version: str, map_: bytes) -> None:
    archive = pax_sparse(version, map_, b"4096", DATA, 2)
    [(entry, content), (after, _)] = read(archive + block(b"after") + END)
    assert (entry.name, entry.size, after.name) == ("real/name", 4096, "after")
    assert content == bytes(512) + b"a" * 512 + bytes(1024) + b"b" * 512 + bytes(1536)


def test_pax_sparse_0_0() -> None:
    offset, length = b"GNU.sparse.offset", b"GNU.sparse.numbytes"
    archive = pax(
        (b"GNU.sparse.size", b"2000"),
        (b"GNU.sparse.numblocks", b"2"),
        (offset, b"100"),
        (length, b"2"),
        (offset, b"300"),
        (length, b"1"),
    )
    [(_, content)] = read(archive + member(block(size=3), b"abc") + END)
    assert content == bytes(100) + b"ab" + bytes(198) + b"c" + bytes(1699)


def test_a_sparse_version_to_come_is_an_ordinary_file() -> None:
    assert read(pax_sparse("2.0", b"0,3", b"9", b"abc", 1) + END)[0][1] == b"abc"


HOSTILE = {
    "overlap": old_sparse([(0, 512), (256, 512)], 4096, DATA),
    "backward": old_sparse([(1024, 512), (0, 512)], 4096, DATA),
    "beyond the file": old_sparse([(0, 512), (4096, 512)], 4096, DATA),
    "less content": old_sparse([(0, 1024)], 4096, DATA[:512]),
    "more content": old_sparse([(0, 512)], 4096, DATA),
    "archive ends in the map": old_sparse([(0, 512)], 4096, b"", bytes(504))[:700],
    "not GNU": member(block(kind=b"S", size=512), DATA[:512]),
    "too large": pax_sparse("0.1", b"0,3", b"1048576", b"abc", 1),
    "over an off_t": pax_sparse("1.0", b"1\n0\n3\n", b"9223372036854775808", b"abc", 1),
    "length over an off_t": pax_sparse("1.0", b"1\n1\n9223372036854775807\n", b"100", b"abc", 1),
    "negative": pax_sparse("0.1", b"-1,3", b"100", b"abc", 1),
    "real size negative": pax_sparse("0.1", b"0,3", b"-1", b"abc", 1),
    "count wrong": pax_sparse("0.1", b"0,3", b"100", b"abc", 2),
    "count huge": pax_sparse("1.0", b"99999999999999999999\n", b"100", b"abc", 1),
    "odd map": pax_sparse("0.1", b"0,3,4", b"100", b"abc", 1),
    "map beyond the member": pax_sparse("1.0", b"3\n0\n3\n", b"100", b"", 1),
    "no number": pax_sparse("1.0", b"x" * 512, b"100", b"abc", 1),
    "lengths before offsets": pax((b"GNU.sparse.numbytes", b"1")) + block(),
    "sparse link": pax((b"GNU.sparse.map", b"0,0"), (b"GNU.sparse.numblocks", b"1")) + block(kind=b"2"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_maps(name: str) -> None:
    with pytest.raises((DataLoss, ResourceExhausted)) as caught:
        read(HOSTILE[name] + END)
    assert len(str(caught.value)) > 10


def test_maps_are_bounded_as_headers_are() -> None:
    extension = (b"%011o\0%011o\0" % (0, 0) * 21).ljust(504, b"\0") + b"\1" + bytes(7)
    with pytest.raises(ResourceExhausted, match="extension headers"):
        read(old_sparse([(0, 0)], 4096, b"", extension * 3000) + END, 8 << 20)
    map_ = b"1000000\n" + b"0\n" * (2 << 20)
    with pytest.raises(ResourceExhausted, match="extension headers"):
        read(pax_sparse("1.0", map_, b"4096", b"", 1) + END, 8 << 20)


def test_holes_of_several_files_add_up() -> None:
    archive = pax_sparse("0.1", b"0,3", b"600000", b"abc", 1)
    assert len(read(archive + END)[0][1]) == 600_000
    with pytest.raises(ResourceExhausted, match="1048576 bytes"):
        read(archive * 2 + END)


@pytest.mark.parametrize(
    "format", [["gnu"], ["posix", "--sparse-version=0.0"], ["posix", "--sparse-version=0.1"], ["posix"]]
)
def test_what_gnu_tar_writes(tmp_path: Path, format: list[str]) -> None:
    with (tmp_path / "file").open("wb") as file:
        for number in range(40):
            file.seek(number << 20)
            file.write(struct.pack(">I", number) * 1024)
        file.truncate(50 << 20)
    command = ["tar", "-C", str(tmp_path), "-S", f"--format={format[0]}", *format[1:], "-cf", "-", "file"]
    archive = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    assert len(archive) < 1 << 20
    [(entry, content)] = read(archive, 64 << 20)
    assert entry.name == "file"
    assert content == (tmp_path / "file").read_bytes()


def test_any_header_is_read_or_refused() -> None:
    """Random bytes where fields are, with a right checksum: no other errors come out."""
    for kind in b"\0001234567SxgLKX":
        for _ in range(60):
            fields = {100: os.urandom(48), 156: bytes([kind]), 157: os.urandom(355), **GNU}
            try:
                read(block(fields=fields) + END * 4)
            except PhantomError as error:
                assert len(str(error)) > 10

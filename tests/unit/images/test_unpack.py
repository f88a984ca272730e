"""Layers: what honest archives become, and that hostile ones are refused and write nothing outside."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import os
import stat
import tarfile
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from phantom_cri.errors import DataLoss, InvalidArgument, PhantomError, ResourceExhausted
from phantom_cri.images import rootfs
from phantom_cri.images.content import digest_of
from phantom_cri.images.limits import Limits
from phantom_cri.images.unpack import Cancelled, Unpacked, unpack

Member = tuple[str, bytes, dict[str, object]]


def file(name: str, content: bytes = b"x", **more: object) -> Member:
    return name, tarfile.REGTYPE, {"content": content, **more}


def folder(name: str, **more: object) -> Member:
    return name, tarfile.DIRTYPE, {"mode": 0o755, **more}


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    return name, kind, {"linkname": target}


def hard(name: str, target: str) -> Member:
    return link(name, target, tarfile.LNKTYPE)


def device(name: str, major: int, minor: int, kind: bytes = tarfile.CHRTYPE) -> Member:
    return name, kind, {"devmajor": major, "devminor": minor}


def archive(*members: Member, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.TarFile(fileobj=buffer, mode="w", format=format) as tar:
        for name, kind, more in members:
            info = tarfile.TarInfo(name)
            info.type, info.uid, info.gid, info.mode = kind, os.getuid(), os.getgid(), 0o644
            content = more.pop("content", b"") if "content" in more else b""
            assert isinstance(content, bytes)
            info.size = len(content)
            for key, value in more.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class Stack:
    """Layers unpacked one over the other, below a folder in which nothing else may appear."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layers: tuple[str, ...] = ()

    def add(self, content: bytes, limits: Limits | None = None) -> Unpacked:
        target = self.root / f"layer{len(self.layers)}"
        target.mkdir()
        done = unpack(io.BytesIO(content), str(target), self.layers, limits or Limits(), threading.Event())
        self.layers = (str(target), *self.layers)
        return done

    def read(self, path: str) -> bytes | None:
        return rootfs.read(self.layers, path)

    def names(self, path: str = "/") -> set[str]:
        found = rootfs.resolve(self.layers, path)
        return {name for name, _ in rootfs.children(found.folders)} if found else set()


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    (tmp_path / "stack").mkdir()
    return Stack(tmp_path / "stack")


# Honest archives


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tar: tar,
        gzip.compress,
        zstandard.compress,
        lambda tar: gzip.compress(tar[:700]) + gzip.compress(tar[700:]),
        lambda tar: gzip.compress(tar) + bytes(100),
        lambda tar: zstandard.compress(tar[:700]) + zstandard.compress(tar[700:]),
        lambda tar: b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstandard.compress(tar),
        lambda tar: zstandard.compress(tar) + b"\x5f\x2a\x4d\x18\x04\0\0\0abcd",
    ],
    ids=[
        "plain",
        "gzip",
        "zstd",
        "gzip members",
        "gzip padding",
        "zstd frames",
        "skippable first",
        "skippable last",
    ],
)
def test_compressions(stack: Stack, wrap: Callable[[bytes], bytes]) -> None:
    tar = archive(folder("d"), file("d/f", b"content" * 1000)) + bytes(5000)
    assert stack.add(wrap(tar)).diff_id == digest_of(tar)
    assert stack.read("/d/f") == b"content" * 1000


def test_an_empty_blob_is_an_empty_layer(stack: Stack) -> None:
    assert stack.add(b"") == Unpacked(digest_of(b""), False, 0)


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_names_and_formats(stack: Stack, format: int) -> None:
    long = "a" * 90 + "/" + "b" * 90
    stack.add(archive(file("./dot"), file("/absolute"), file(long, b"long"), format=format))
    assert stack.names() == {"dot", "absolute", "a" * 90}
    assert stack.read(long) == b"long"


def test_attributes(stack: Stack) -> None:
    pax = {
        "mtime": "1234.5",
        "SCHILY.xattr.user.binary": "\udcff\0raw".encode("utf-8", "surrogateescape").decode(
            "utf-8", "surrogateescape"
        ),
    }
    stack.add(
        archive(
            folder("d", mode=0o1777, mtime=7),
            file("d/setuid", mode=0o4755, mtime=1234),
            file("d/x", pax_headers={"LIBARCHIVE.xattr.user.a%20b": base64.b64encode(b"\0\xff").decode()}),
            file("d/old", mtime=-5),
            file("d/future", mtime=2**33),
        )
    )
    root = stack.layers[0]
    assert stat.S_IMODE(os.stat(f"{root}/d").st_mode) == 0o1777
    assert os.stat(f"{root}/d").st_mtime == 7
    assert stat.S_IMODE(os.stat(f"{root}/d/setuid").st_mode) == 0o4755
    assert os.getxattr(f"{root}/d/x", "user.a b") == b"\0\xff"
    assert os.stat(f"{root}/d/old").st_mtime == -5
    assert pax


def test_binary_attributes_survive(stack: Stack) -> None:
    stack.add(raw_pax(b"SCHILY.xattr.user.raw=\x01\x00\xff\n\xfe", b"f"))
    assert os.getxattr(f"{stack.layers[0]}/f", "user.raw") == b"\x01\x00\xff\n\xfe"


def test_a_parent_that_is_a_link_is_followed_inside(stack: Stack) -> None:
    stack.add(archive(folder("usr"), folder("usr/lib"), link("lib", "usr/lib"), link("abs", "/usr/lib")))
    done = stack.add(archive(file("lib/a"), file("abs/b")))
    assert done.needs_lower
    assert stack.names("/usr/lib") == {"a", "b"}
    stack.add(archive(link("l", "/usr"), file("l/c"), file("same/d")))
    assert stack.names("/usr") == {"lib", "c"}


def test_a_parent_takes_after_the_one_below(stack: Stack) -> None:
    stack.add(archive(folder("tmp", mode=0o1777, mtime=9)))
    assert stack.add(archive(file("tmp/new/f"))).needs_lower
    top = os.stat(f"{stack.layers[0]}/tmp")
    assert (stat.S_IMODE(top.st_mode), top.st_mtime) == (0o1777, 9)
    assert stat.S_IMODE(os.stat(f"{stack.layers[0]}/tmp/new").st_mode) == 0o755


def test_a_layer_that_names_its_parents_is_shared(stack: Stack) -> None:
    assert not stack.add(archive(folder("a"), folder("a/b"), file("a/b/f"), hard("a/g", "a/b/f"))).needs_lower


def test_a_hard_link_into_a_lower_layer_is_copied_up(stack: Stack) -> None:
    stack.add(archive(folder("d"), file("d/f", b"below", uid=5)))
    assert stack.add(archive(folder("e"), hard("e/g", "/d/f"))).needs_lower
    top = stack.layers[0]
    assert stack.read("/e/g") == b"below"
    assert os.stat(f"{top}/e/g").st_ino == os.stat(f"{top}/d/f").st_ino


@pytest.mark.parametrize("last", [True, False])
def test_whiteouts_hide_lower_layers_only_in_any_order(stack: Stack, last: bool) -> None:
    stack.add(archive(folder("d"), file("d/old"), file("d/gone"), file("f"), folder("r"), file("r/below")))
    marks = [file(".wh.f", b""), file("d/.wh.gone", b""), file("d/.wh.old", b""), file(".wh.r", b"")]
    real = [folder("d"), file("d/old", b"new"), folder("r"), file("r/above")]
    stack.add(archive(*(real + marks if last else marks + real)))
    assert stack.names() == {"d", "r"}
    assert stack.names("/d") == {"old"}
    assert stack.read("/d/old") == b"new"
    assert stack.names("/r") == {"above"}


@pytest.mark.parametrize("last", [True, False])
def test_opaque_folders(stack: Stack, last: bool) -> None:
    stack.add(archive(folder("d"), file("d/below")))
    marker, real = file("d/.wh..wh..opq", b""), file("d/above")
    stack.add(archive(folder("d"), *([real, marker] if last else [marker, real])))
    assert stack.names("/d") == {"above"}


def test_an_opaque_root(stack: Stack) -> None:
    stack.add(archive(folder("d"), file("d/below"), file("f")))
    stack.add(archive(file(".wh..wh..opq", b""), folder("d"), file("d/above")))
    assert stack.names() == {"d"}
    assert stack.names("/d") == {"above"}


def test_names_of_aufs_mean_nothing(stack: Stack) -> None:
    stack.add(archive(folder(".wh..wh.plnk"), file(".wh..wh.plnk/1.2"), file(".wh..wh.aufs", b""), file("f")))
    assert stack.names() == {"f"}


def test_holes_take_no_room(stack: Stack) -> None:
    records = {"GNU.sparse.map": "1048576,4", "GNU.sparse.numblocks": "1", "GNU.sparse.size": str(16 << 20)}
    stack.add(archive(file("f", b"data", pax_headers=records, mtime=5)))
    status = os.stat(f"{stack.layers[0]}/f")
    assert (status.st_size, status.st_mtime) == (16 << 20, 5)
    assert status.st_blocks * 512 < 1 << 20
    assert stack.read("/f") == bytes(1 << 20) + b"data" + bytes((15 << 20) - 4)


@pytest.mark.parametrize("after", [file("d"), link("d", "/etc"), link("d", "..")])
def test_a_folder_with_folders_that_is_replaced(stack: Stack, after: Member) -> None:
    stack.add(archive(folder("etc"), file("d")))
    members = archive(folder("d"), folder("d/e", mtime=1), folder("d/e/f", mtime=1), after)
    stack.add(members, Limits())
    assert stack.names() == {"d", "etc"}
    assert not stat.S_ISDIR(os.lstat(f"{stack.layers[0]}/d").st_mode)


def test_a_whiteout_that_hides_nothing_is_not_made(stack: Stack) -> None:
    """In a folder that no lower layer has, overlayfs would list it."""
    stack.add(archive(folder("d"), file("d/.wh.x", b""), file("d/f")))
    stack.add(archive(folder("new"), file("new/.wh.x", b""), folder("d"), file("d/.wh.f", b"")))
    assert [os.listdir(f"{layer}/new") for layer in stack.layers[:1]] == [[]]
    assert os.listdir(f"{stack.layers[1]}/d") == ["f"]
    assert stack.names("/d") == set()


def test_only_a_layer_that_such_a_whiteout_was_left_out_of_is_kept_per_chain(stack: Stack) -> None:
    hides = archive(folder("d"), file("d/.wh.f", b""))
    assert stack.add(hides).needs_lower
    stack.add(archive(folder("d"), file("d/f")))
    assert not stack.add(hides).needs_lower


# Hostile archives


def raw_pax(record: bytes, name: bytes) -> bytes:
    """A member with one PAX record of raw bytes, which `tarfile` cannot write."""
    length = len(record) + 3
    while len(str(length)) + 1 + len(record) + 1 != length:
        length += 1
    body = str(length).encode() + b" " + record + b"\n"
    pax = tarfile.TarInfo("pax")
    pax.type, pax.size = tarfile.XHDTYPE, len(body)
    info = tarfile.TarInfo(name.decode())
    info.uid, info.gid = os.getuid(), os.getgid()
    padded = body + bytes(-len(body) % 512)
    return pax.tobuf(tarfile.USTAR_FORMAT) + padded + info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024)


def header(**fields: object) -> bytes:
    info = tarfile.TarInfo("f")
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def bad_checksum() -> bytes:
    return header()[:-1] + b"\1" + bytes(1024)


HOSTILE: dict[str, bytes | Callable[[], bytes]] = {
    "link loop": archive(link("a", "b"), link("b", "a"), file("a/evil")),
    "parent is a file": archive(file("f"), file("f/evil")),
    "hard link to nothing": archive(hard("h", "missing")),
    "hard link to a folder": archive(folder("d"), hard("h", "d")),
    "hard link to itself": archive(hard("h", "h")),
    "hard link to the root": archive(hard("h", "/")),
    "hard link to what is above the root": archive(hard("h", "../..")),
    "hard link above, to nothing": archive(hard("h", "../../etc/shadow")),
    "hard link in place of its target": archive(file("f"), hard("f", "f")),
    "hard link to a whiteout": archive(file(".wh.x", b""), hard("h", "x")),
    "whiteout of nothing": archive(file(".wh.", b"")),
    "whiteout of dot": archive(file("d/.wh..", b"")),
    "whiteout of dot dot": archive(file("d/.wh...", b"")),
    "long component": archive(file("c" * 300)),
    "long path": archive(file("/".join(["d" * 200] * 30))),
    "deep path": archive(file("/".join(["d"] * 1500))),
    "NUL in a name": lambda: raw_pax(b"path=a\0b", b"f"),
    "NUL in an attribute": lambda: raw_pax(b"SCHILY.xattr.user.a\0b=x", b"f"),
    "link without a target": archive(link("l", "")),
    "unknown type": archive(("v", b"V", {})),
    "sparse folder": archive(folder("s", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})),
    "no checksum": bad_checksum,
    "not a tar": b"#!/bin/sh\n" * 100,
    "ends in a header": archive(file("f"))[:100],
    "ends in a file": archive(file("f", bytes(5000)))[:2000],
    "ends in an extension": raw_pax(b"path=x", b"f")[:600],
    "gzip cut short": gzip.compress(archive(file("f", os.urandom(5000))))[:-2000],
    "gzip broken": gzip.compress(archive(file("f")))[:20] + b"broken" * 20,
    "zstd broken": b"\x28\xb5\x2f\xfd" + b"\xff" * 100,
    "extension of a terabyte": lambda: header(type=tarfile.XHDTYPE, size=1 << 40) + bytes(1024),
    "long name of a gigabyte": lambda: header(type=tarfile.GNUTYPE_LONGNAME, size=1 << 30) + bytes(1024),
    "file of a terabyte": lambda: header(size=1 << 40) + bytes(1024),
    "malformed PAX": lambda: header(type=tarfile.XHDTYPE, size=10) + b"99 a=b\n" + bytes(505) + header(),
    "PAX record of no length": lambda: (
        header(type=tarfile.XHDTYPE, size=6) + b"0 a=b\n" + bytes(506) + header()
    ),
    "PAX size": lambda: raw_pax(b"size=-1", b"f"),
    "owner out of range": lambda: raw_pax(b"uid=4294967295", b"f"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_and_write_nothing_outside(
    stack: Stack, tmp_path: Path, name: str
) -> None:
    content = HOSTILE[name]
    stack.add(archive(folder("etc"), file("etc/passwd", b"root"), folder("d")))
    before = {path for path in tmp_path.rglob("*") if "layer1" not in path.parts}
    with pytest.raises(PhantomError) as caught:
        stack.add(content if isinstance(content, bytes) else content())
    assert isinstance(caught.value, InvalidArgument | DataLoss | ResourceExhausted)
    assert len(str(caught.value)) > 10
    assert {path for path in tmp_path.rglob("*") if "layer1" not in path.parts} == before
    assert stack.read("/etc/passwd") == b"root"


def test_bombs_stop_at_the_limits(stack: Stack) -> None:
    bomb = gzip.compress(archive(file("f", bytes(4 << 20))))
    with pytest.raises(ResourceExhausted, match="1048576 bytes"):
        stack.add(bomb, Limits(layer_bytes=1 << 20))
    many = archive(*(file(f"f{number}") for number in range(20)))
    stack.root = stack.root / "second"
    stack.root.mkdir()
    with pytest.raises(ResourceExhausted, match="10 entries"):
        stack.add(many, Limits(layer_entries=10))


def test_a_bomb_behind_the_archive_stops_too(stack: Stack) -> None:
    with pytest.raises(ResourceExhausted):
        stack.add(gzip.compress(archive(file("f")) + bytes(4 << 20)), Limits(layer_bytes=1 << 20))


def test_extension_headers_cannot_pile_up(stack: Stack) -> None:
    one = header(type=tarfile.XHDTYPE, size=512) + b"512 a=" + b"x" * 505 + b"\n"
    with pytest.raises(ResourceExhausted, match="extension headers"):
        stack.add(one * 3000 + header() + bytes(1024))


def test_cancelled(tmp_path: Path) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Cancelled):
        unpack(io.BytesIO(archive(file("f"))), str(tmp_path), (), Limits(), cancelled)


def test_the_root_keeps_its_mode_through_layers_that_do_not_name_it(stack: Stack) -> None:
    stack.add(archive(folder("./", mode=0o750), file("a")))
    assert stack.add(archive(file("b"))).needs_lower
    assert stat.S_IMODE(os.stat(stack.layers[0]).st_mode) == 0o750


SOUND = archive(
    folder("d"),
    file("d/f", b"content" * 200, pax_headers={"SCHILY.xattr.user.a": "b", "mtime": "1.5"}),
    link("l", "d"),
    hard("h", "d/f"),
    file("l/" + "n" * 150),
    file("d/.wh.x", b""),
    device("null", 1, 3),
    file("l/.wh..wh..opq", b""),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=12))
def test_damaged_archives_fail_as_such_or_not_at_all(changes: list[tuple[int, int]]) -> None:
    """Any bytes may be wrong, with header checksums made right again: only our own errors come out."""
    damaged = bytearray(SOUND)
    for position, value in changes:
        damaged[position] = value
    for start in range(0, len(damaged), 512):
        block = damaged[start : start + 512]
        if SOUND[start + 257 : start + 262] == b"ustar":
            total = sum(block) - sum(block[148:156]) + 8 * 32
            damaged[start + 148 : start + 156] = b"%06o\0 " % total
    with tempfile.TemporaryDirectory() as name:
        top = Path(name) / "layer"
        top.mkdir()
        with contextlib.suppress(PhantomError):
            unpack(io.BytesIO(damaged), str(top), (), Limits(layer_bytes=1 << 20), threading.Event())
        assert os.listdir(name) == ["layer"]

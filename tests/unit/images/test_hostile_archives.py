"""Random hostile layers: whatever they are, nothing outside of the layer's own folder changes."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phantom_cri.errors import DataLoss, InvalidArgument, ResourceExhausted
from phantom_cri.images.limits import Limits
from phantom_cri.images.unpack import unpack

Member = tuple[str, bytes, str, bytes]
"""Name, kind, link target, content."""

CANARY = "canary"
PARTS = ("a", "b", "a", "b", "etc", CANARY, "a", "b", "file", "..", ".wh.a", ".wh...", ".wh..wh..opq")
CLIMBS = ("..", "../..", "../../canary", "/", "/..", "a", "b", "a/b", ".", "/canary/file", "../canary/file")
KINDS = (
    tarfile.REGTYPE,
    tarfile.REGTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
)

short = st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map("/".join)
deep = st.builds(
    lambda part, depth, last: "/".join([part] * depth + [last]),
    st.sampled_from(["a", "..", "a/..", "b/."]),
    st.integers(1, 600),
    st.sampled_from(["file", CANARY, "..", "f" * 300]),
)
absolute = st.builds(lambda start, rest: start + rest, st.sampled_from(["/", "//", "./", "/", "/../"]), short)
names = st.one_of(
    short, short, short, short, absolute, deep, st.just("@/canary/file"), st.just("@/canary/new")
)
"""`@` stands for the folder in which the layer and the canary are."""

targets = st.one_of(st.sampled_from(CLIMBS), short, st.sampled_from(["@", "@/canary", "@/canary/file"]))
members = st.tuples(names, st.sampled_from(KINDS), targets, st.sampled_from([b"", b"evil"]))


@st.composite
def swaps(draw: st.DrawFn) -> list[Member]:
    """A folder that becomes a link out, or a link that becomes one, and a file written through it."""
    name, target = draw(st.sampled_from(["a", "a/b"])), draw(targets)
    folder: Member = (name, tarfile.DIRTYPE, "", b"")
    link: Member = (name, tarfile.SYMTYPE, target, b"")
    first = draw(st.permutations([folder, link]))
    return [*first, (f"{name}/file", draw(st.sampled_from(KINDS)), target, b"evil"), *first]


@st.composite
def double_links(draw: st.DrawFn) -> list[Member]:
    """A hard link to a symbolic one that leads out, and then a file in its place or below it."""
    target = draw(st.sampled_from(["../canary/file", "../canary", "@/canary/file"]))
    hard = draw(st.sampled_from(["hard", "a/hard"]))
    last = draw(st.sampled_from([hard, f"{hard}/file", f"{hard}/b"]))
    links: list[Member] = [("soft", tarfile.SYMTYPE, target, b""), (hard, tarfile.LNKTYPE, "soft", b"")]
    return [*links, (last, draw(st.sampled_from(KINDS)), target, b"evil")]


layers = st.lists(members.map(lambda member: [member]) | swaps() | double_links(), min_size=1, max_size=5)


def archive(content: Sequence[Member], root: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.TarFile(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, target, text in content:
            text = text if kind == tarfile.REGTYPE else b""
            info = tarfile.TarInfo(name.replace("@", root))
            info.type, info.linkname, info.size = kind, target.replace("@", root), len(text)
            info.uid, info.gid, info.mode, info.mtime = os.getuid(), os.getgid(), 0o4777, 1
            info.devmajor, info.devminor = 1, 3
            info.pax_headers = {"SCHILY.xattr.user.evil": "evil"}
            tar.addfile(info, io.BytesIO(text))
    return buffer.getvalue()


def outside(root: Path) -> dict[str, Any]:
    """All that there is below `root` but the layers themselves."""
    found: dict[str, Any] = {}
    for folder, folders, files in os.walk(root):
        if Path(folder) == root:
            folders[:] = [name for name in folders if not name.startswith("layer")]
        for name in (".", *files):
            path = Path(folder, name)
            status = path.lstat()
            if path == root:  # the layers are made in it
                continue
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else os.listdir(folder)
            attributes = os.listxattr(path, follow_symlinks=False)
            what = (status.st_mode, status.st_uid, status.st_nlink, status.st_mtime_ns, status.st_ctime_ns)
            found[str(path)] = (what, content, attributes)
    return found | {"names": {name for name in os.listdir(root) if not name.startswith("layer")}}


def make_canary(root: Path) -> None:
    folder = root / CANARY / "a" / "b"
    folder.mkdir(parents=True)
    for place in (root / CANARY, folder):
        (place / "file").write_text("harmless")
        (place / "file").chmod(0o600)


def check(stack: Sequence[Sequence[Member]]) -> None:
    """Unpacks the layers one over the other; each is taken or refused as hostile."""
    with tempfile.TemporaryDirectory() as name:
        root, lower = Path(name), list[str]()
        make_canary(root)
        before = outside(root)
        for number, content in enumerate(stack):
            target = root / f"layer{number}"
            target.mkdir()
            source = io.BytesIO(archive(content, name))
            try:
                unpack(source, str(target), lower, Limits(), threading.Event())
            except (InvalidArgument, DataLoss, ResourceExhausted) as error:
                assert len(str(error)) > 10
                break
            finally:
                assert outside(root) == before
            lower.insert(0, str(target))


def flat(groups: Sequence[Sequence[Member]]) -> list[Member]:
    return [member for group in groups for member in group]


@given(first=layers, second=layers)
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_nothing_outside_changes(first: list[list[Member]], second: list[list[Member]]) -> None:
    check([flat(first), flat(second)])


@pytest.mark.long
@given(first=layers, second=layers)
@settings(max_examples=8_000, deadline=None, derandomize=True, database=None)
def test_nothing_outside_changes_for_long(first: list[list[Member]], second: list[list[Member]]) -> None:
    check([flat(first), flat(second)])


@given(low=layers, top=layers)
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_a_link_of_a_lower_layer_leads_nowhere_else(low: list[list[Member]], top: list[list[Member]]) -> None:
    """The lower layer is made by hand, with links that lead out: what is unpacked over it stays inside."""
    links: list[list[Member]] = [[(name, tarfile.SYMTYPE, "@/canary", b"")] for name in ("a", "etc", CANARY)]
    check([flat(links), flat(low), flat(top)])

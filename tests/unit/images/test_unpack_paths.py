"""Where the entries of a layer end up: paths named twice, whiteouts, the root as the upper end, links."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest

from phantom_cri.errors import InvalidArgument
from phantom_cri.images import rootfs
from tests.unit.images.test_unpack import Member, Stack, archive, device, file, folder, hard, link

SORTS: dict[str, Callable[[str], Member]] = {
    "file": lambda name: file(name, b"content of a file"),
    "folder": folder,
    "symlink": lambda name: link(name, "/elsewhere"),
    "hard link": lambda name: hard(name, "other"),
    "device": lambda name: device(name, 1, 3),
    "fifo": lambda name: (name, tarfile.FIFOTYPE, {}),
}
BELOW: dict[str, list[Member]] = {
    "nothing": [],
    "file": [file("x", b"lower")],
    "folder": [folder("x"), file("x/lower")],
    "symlink": [link("x", "/below")],
}


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return Stack(tmp_path)


def sort_of(stack: Stack, path: str) -> str:
    """What overlayfs shows at `path`, in the words of SORTS."""
    found = rootfs.lookup(stack.layers, path)
    assert found is not None
    mode = found.status.st_mode
    if stat.S_ISREG(mode):
        return "hard link" if found.status.st_nlink > 1 else "file"
    names = {stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink", stat.S_IFCHR: "device", stat.S_IFIFO: "fifo"}
    return names[stat.S_IFMT(mode)]


# A path named twice


@pytest.mark.parametrize("below", BELOW)
@pytest.mark.parametrize(("first", "last"), [*permutations(SORTS, 2), *((sort, sort) for sort in SORTS)])
def test_the_last_of_two_entries_counts(stack: Stack, first: str, last: str, below: str) -> None:
    stack.add(archive(*BELOW[below]))
    inner = [file("x/inner", b"first")] if first == "folder" else []
    more = [file("x/upper")] if last == "folder" else []
    stack.add(archive(file("other", b"o"), SORTS[first]("x"), *inner, SORTS[last]("x"), *more))
    assert sort_of(stack, "x") == last
    if last == "folder":
        merged = {"inner", *({"lower"} if below == "folder" else ())} if first == "folder" else set()
        assert stack.names("/x") == {"upper", *merged}
    if first == "hard link" != last:
        assert os.stat(f"{stack.layers[0]}/other").st_nlink == 1


def test_the_second_of_two_files_is_another_file(stack: Stack) -> None:
    stack.add(archive(file("f", b"longer", mode=0o4755), hard("g", "f"), file("f", b"2", mode=0o600)))
    assert (stack.read("/f"), stack.read("/g")) == (b"2", b"longer")
    assert stat.S_IMODE(os.stat(f"{stack.layers[0]}/f").st_mode) == 0o600


def test_the_second_of_two_folders_says_what_it_is_like(stack: Stack) -> None:
    stack.add(archive(folder("d", mode=0o700, mtime=1), file("d/f"), folder("d", mode=0o755, mtime=2)))
    status = os.stat(f"{stack.layers[0]}/d")
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o755, 2)
    assert stack.names("/d") == {"f"}


def test_paths_that_differ_only_as_texts_are_one(stack: Stack) -> None:
    members = [
        file("d/f", b"1"),
        link("l", "d"),
        file("l/f", b"2"),
        file("./d//./f", b"3"),
        file("/d/e/../f"),
    ]
    stack.add(archive(folder("d"), *members))
    assert stack.read("/d/f") == b"x"
    assert stack.names("/d") == {"f"}


def test_a_folder_that_becomes_a_link_leads_its_entries_elsewhere(stack: Stack) -> None:
    stack.add(archive(folder("d"), file("d/a"), folder("e"), link("d", "e"), file("d/b")))
    assert stack.names("/e") == {"b"}


def test_a_link_that_becomes_a_folder_keeps_its_entries(stack: Stack) -> None:
    stack.add(archive(folder("e"), link("d", "e"), file("d/a"), folder("d"), file("d/b")))
    assert (stack.names("/e"), stack.names("/d")) == ({"a"}, {"b"})


def test_a_link_of_a_lower_layer_that_becomes_a_folder(stack: Stack) -> None:
    stack.add(archive(folder("e"), link("d", "e")))
    stack.add(archive(file("d/a"), folder("d"), file("d/b")))
    assert (stack.names("/e"), stack.names("/d")) == ({"a"}, {"b"})


def test_a_deep_folder_is_replaced_whole(stack: Stack) -> None:
    deep = "/".join(["d"] * 300)
    stack.add(archive(file(f"{deep}/f"), file("d", b"flat")))
    assert stack.read("/d") == b"flat"


# Whiteouts


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("sort", ["file", "folder", "symlink", "hard link", "device", "fifo"])
def test_a_whiteout_never_hides_its_own_layer(stack: Stack, sort: str, last: bool) -> None:
    stack.add(archive(folder("x"), file("x/lower")))
    entry, mark = SORTS[sort]("x"), file(".wh.x", b"")
    stack.add(archive(file("other"), *([entry, mark] if last else [mark, entry])))
    assert sort_of(stack, "x") == sort
    assert stack.names("/x") == set()


@pytest.mark.parametrize("sort", SORTS)
def test_the_name_alone_makes_a_whiteout(stack: Stack, sort: str) -> None:
    stack.add(archive(file("x"), folder("d"), file("d/lower")))
    opaque = SORTS[sort]("d/.wh..wh..opq")
    stack.add(archive(file("other"), SORTS[sort](".wh.x"), file(".wh.x", b""), opaque, file("d/upper")))
    assert stack.names() == {"other", "d"}
    assert stack.names("/d") == {"upper"}


def test_entries_below_the_name_of_a_whiteout(stack: Stack) -> None:
    stack.add(archive(file("x")))
    stack.add(archive(folder(".wh.x"), file(".wh.x/f", b"inside")))
    assert stack.names() == {".wh.x"}
    assert stack.read("/.wh.x/f") == b"inside"


# The root is the upper end


@pytest.mark.parametrize("name", ["../f", "../../f", "/../f", "a/../../f", "/./../a/../f", "a/b/../../../f"])
def test_names_end_at_the_root(stack: Stack, name: str) -> None:
    stack.add(archive(file(name, b"clamped")))
    assert stack.read("/f") == b"clamped"
    assert stack.names() == {"f"}


@pytest.mark.parametrize("target", ["..", "../../..", "/..", "d/../../..", "/../../d/.."])
def test_links_end_at_the_root(stack: Stack, target: str) -> None:
    stack.add(archive(folder("d"), link("l", target), file("l/f", b"clamped")))
    assert stack.read("/f") == b"clamped"
    assert stack.names() == {"d", "l", "f"}


def test_hard_links_end_at_the_root(stack: Stack) -> None:
    stack.add(archive(folder("d"), file("f", b"inside"), link("d/up", "../../..")))
    stack.add(archive(hard("a", "../../f"), hard("b", "/../f"), hard("c", "d/../../f"), hard("e", "d/up/f")))
    assert [stack.read(name) for name in "abce"] == [b"inside"] * 4
    assert os.stat(f"{stack.layers[0]}/f").st_nlink == 5


@pytest.mark.parametrize("name", ["/", "./", "..", "d/..", "../.", ""])
@pytest.mark.parametrize("sort", sorted({*SORTS} - {"folder"}))
def test_a_root_that_is_no_folder_is_ignored(stack: Stack, name: str, sort: str) -> None:
    done = stack.add(archive(file("other"), SORTS[sort](name)))
    assert stack.names() == {"other"}
    assert not done.names_root


# What overlayfs would take for its own


@pytest.mark.parametrize(
    "name", ["trusted.overlay.opaque", "user.overlay.opaque", "trusted.overlay.redirect", "trusted.x"]
)
def test_attributes_of_overlayfs_are_dropped(stack: Stack, name: str) -> None:
    records = {
        f"SCHILY.xattr.{name}": "y",
        "LIBARCHIVE.xattr.trusted.overlay.metacopy": "",
        "SCHILY.xattr.user.kept": "1",
    }
    stack.add(archive(folder("d"), file("d/lower")))
    done = stack.add(archive(folder("d", pax_headers=records), file("f", pax_headers=records)))
    assert stack.names("/d") == {"lower"}
    assert [os.listxattr(f"{stack.layers[0]}/{path}") for path in ("d", "f")] == [["user.kept"]] * 2
    assert not done.needs_lower


def test_a_device_0_0_is_left_out(stack: Stack) -> None:
    stack.add(archive(folder("d"), file("d/lower", b"lower"), file("d/both", b"lower")))
    own = [file("d/both", b"upper"), device("d/both", 0, 0), device("d/new", 0, 0), device("e/new", 0, 0)]
    stack.add(archive(*own, device("d/lower", 0, 0), device("d/real", 0, 0, tarfile.BLKTYPE)))
    assert (stack.read("/d/lower"), stack.read("/d/both")) == (b"lower", b"upper")
    assert (stack.names(), stack.names("/d")) == ({"d"}, {"lower", "both", "real"})


# Hard links


def test_a_hard_links_header_holds_for_the_file(stack: Stack) -> None:
    stack.add(
        archive(
            file("f", mode=0o644),
            (*hard("g", "f")[:2], {"linkname": "f", "mode": 0o4755, "uid": 7, "mtime": 9}),
        )
    )
    status = os.stat(f"{stack.layers[0]}/f")
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime) == (0o4755, 7, 9)


def test_a_hard_link_to_a_symbolic_link_is_one(stack: Stack) -> None:
    stack.add(archive(link("l", "/etc/passwd"), hard("h", "l")))
    assert os.readlink(f"{stack.layers[0]}/h") == "/etc/passwd"


def test_a_hard_link_keeps_capabilities(stack: Stack) -> None:
    raw = "\x01\0\0\x02\0\x20" + "\0" * 14  # CAP_NET_RAW, as getcap(8) shows of ping
    stack.add(archive(file("f", pax_headers={"SCHILY.xattr.security.capability": raw}), hard("g", "f")))
    assert os.getxattr(f"{stack.layers[0]}/g", "security.capability") == raw.encode()


@pytest.mark.parametrize(
    "members",
    [
        [file("f"), file("f/inside")],
        [device("f", 1, 3), file("f/inside")],
        [file("f"), link("l", "f"), file("l/inside")],
    ],
)
def test_a_file_is_no_parent(stack: Stack, members: list[Member]) -> None:
    with pytest.raises(InvalidArgument, match="not a folder"):
        stack.add(archive(*members))

"""Links and whiteouts in layers."""

from __future__ import annotations

from harness.image import LayerBuilder as Layer
from tests.e2e.odd_images.case import Better, Case, prints, refused
from tests.e2e.odd_images.draft import Draft, layers
from tests.e2e.odd_images.tars import archive, member


def look_on_top(draft: Draft) -> None:
    """/look on top of what would hide it."""
    draft.layers.append(draft.layers.pop(1))


LINKS = (
    Case(
        "hard-link-below",
        "A hard link leads to a file of a lower layer, with attributes.",
        [
            layers(
                Layer().file("to", "to", 0o640, uid=7, pax_headers={"SCHILY.xattr.user.a": "b"}).finish(),
                Layer().member("l", b"1", 0o640, linkname="to", uid=7).finish(),
            )
        ],
        "look /l /to",
        refused("pull"),
        Better(
            prints(
                '/l "to" mode 640 owner 7:0 links 2 user.a="b"',
                '/to "to" mode 640 owner 7:0 links 2 user.a="b"',
            ),
            "the layer means what it says: the lower file is copied up, as link(2) on an overlay does",
        ),
    ),
    Case(
        "hard-link-absolute",
        "A hard link's target is absolute.",
        [layers(Layer().file("d/to", "to").member("l", b"1", 0o644, linkname="/d/to").finish())],
        "look /l /d",
        prints('/l "to" links 2', "/d/", '/d/to "to" links 2'),
    ),
    Case(
        "hard-link-dot-dot",
        "A hard link's target leads above the root.",
        [layers(Layer().file("to", "to").member("l", b"1", 0o644, linkname="../../to").finish())],
        "look /l /to",
        prints('/l "to" links 2', '/to "to" links 2'),
    ),
    Case(
        "hard-link-to-symlink",
        "A hard link leads to a symbolic link, which is not followed.",
        [layers(Layer().symlink("to", "/etc/passwd").member("l", b"1", 0o777, linkname="to").finish())],
        "look /l /to",
        prints("/l -> /etc/passwd links 2", "/to -> /etc/passwd links 2"),
    ),
    Case(
        "hard-link-through-symlink",
        "A hard link's target lies behind a symbolic link that points out of the root.",
        [
            layers(
                Layer()
                .directory("d")
                .file("d/to", "to")
                .symlink("way", "../../d")
                .member("l", b"1", 0o644, linkname="way/to")
                .finish()
            )
        ],
        "look /l /d",
        prints('/l "to" links 2', "/d/", '/d/to "to" links 2'),
    ),
    Case(
        "hard-link-missing",
        "A hard link's target is nowhere.",
        [layers(Layer().member("l", b"1", 0o644, linkname="gone").finish())],
        "look /l",
        refused("pull"),
    ),
    Case(
        "hard-link-forward",
        "A hard link comes before its target.",
        [layers(Layer().member("l", b"1", 0o644, linkname="to").file("to", "to").finish())],
        "look /l /to",
        refused("pull"),
    ),
    Case(
        "hard-link-to-directory",
        "A hard link leads to a directory.",
        [layers(Layer().directory("to").member("l", b"1", 0o755, linkname="to").finish())],
        "look /l /to",
        refused("pull"),
    ),
    Case(
        "hard-link-to-whited-out",
        "A hard link leads to a file of a lower layer that this layer takes away.",
        [
            layers(
                Layer().file("to", "to").finish(),
                Layer().file(".wh.to", "").member("l", b"1", 0o644, linkname="to").finish(),
            )
        ],
        "look /l /to",
        prints("/l missing", "/to missing"),
        Better(refused("pull"), "the target is gone; there the new name is a second whiteout"),
    ),
    Case(
        "hard-link-with-owner",
        "A hard link's header has another owner and mode than its file's.",
        [layers(Layer().file("to", "to").member("l", b"1", 0o600, linkname="to", uid=7).finish())],
        "look /l /to",
        prints('/l "to" mode 600 owner 7:0 links 2', '/to "to" mode 600 owner 7:0 links 2'),
    ),
    Case(
        "hard-link-with-content",
        "A hard link's header has a size, and the content follows, as PAX allows.",
        [layers(archive(member(b"to", b"to"), member(b"l", b"to", b"1", link=b"to"), member(b"f", b"f")))],
        "look /l /to /f",
        refused("pull"),
    ),
    Case(
        "symlink-long-target",
        "A symbolic link's target has 4000 bytes.",
        [layers(Layer().symlink("l", "t/" * 2000).finish())],
        "readlink /l | wc -c",
        prints("4001"),
    ),
    Case(
        "symlink-empty-target",
        "A symbolic link has no target.",
        [layers(archive(member(b"l", kind=b"2", mode=0o777), member(b"f", b"f")))],
        "look /l /f",
        refused("pull"),
    ),
)

LOW = Layer().directory("d").file("d/a", "low a").file("d/b", "low b").finish()

WHITEOUTS = (
    Case(
        "whiteout-after-entry",
        "A whiteout comes after an entry of its own name in the same layer.",
        [layers(LOW, Layer().directory("d").file("d/a", "high a").file("d/.wh.a", "").finish())],
        "look /d",
        refused("pull"),
        Better(
            prints("/d/", '/d/a "high a"', '/d/b "low b"'),
            "the specification says that the order does not matter",
        ),
    ),
    Case(
        "whiteout-before-entry",
        "A whiteout comes before an entry of its own name in the same layer.",
        [layers(LOW, Layer().directory("d").file("d/.wh.a", "").file("d/a", "high a").finish())],
        "look /d",
        prints("/d/", '/d/a "high a"', '/d/b "low b"'),
    ),
    Case(
        "whiteout-of-directory",
        "A whiteout takes a directory away, and a later layer makes it again.",
        [layers(LOW, Layer().file(".wh.d", "").finish(), Layer().directory("d").file("d/c", "c").finish())],
        "look /d",
        prints("/d/", '/d/c "c"'),
    ),
    Case(
        "whiteout-and-directory",
        "A layer takes a directory away and makes it anew.",
        [layers(LOW, Layer().file(".wh.d", "").directory("d").file("d/c", "c").finish())],
        "look /d",
        prints("/d/", '/d/a "low a"', '/d/b "low b"', '/d/c "c"'),
        Better(
            prints("/d/", '/d/c "c"'),
            "what is taken away stays away; there it comes back in the new directory",
        ),
    ),
    Case(
        "whiteout-after-directory",
        "A layer makes a directory anew and then takes the one below away.",
        [layers(LOW, Layer().directory("d").file("d/c", "c").file(".wh.d", "").finish())],
        "look /d",
        refused("pull"),
        Better(prints("/d/", '/d/c "c"'), "the specification says that the order does not matter"),
    ),
    Case(
        "opaque-first",
        "An opaque marker comes before the directory's new entries.",
        [layers(LOW, Layer().directory("d").file("d/.wh..wh..opq", "").file("d/c", "c").finish())],
        "look /d",
        prints("/d/", '/d/c "c"'),
    ),
    Case(
        "opaque-last",
        "An opaque marker comes after the directory's new entries.",
        [layers(LOW, Layer().directory("d").file("d/c", "c").file("d/.wh..wh..opq", "").finish())],
        "look /d",
        prints("/d/", '/d/c "c"'),
    ),
    Case(
        "opaque-root",
        "The root is opaque: all layers below are hidden.",
        [layers(LOW, Layer().file(".wh..wh..opq", "").file("f", "f").finish()), look_on_top],
        ["/look", "/d", "/f", "/etc/group"],
        prints("/d/", '/d/a "low a"', '/d/b "low b"', '/f "f"', "/etc/group 53 bytes 56eaa094a72b78c6"),
        Better(
            prints("/d missing", '/f "f"', "/etc/group missing"),
            "the marker is obeyed, as in every other directory",
        ),
    ),
    Case(
        "opaque-without-directory",
        "An opaque marker is all that a layer has of a directory.",
        [layers(LOW, Layer().file("d/.wh..wh..opq", "").finish())],
        "look /d",
        prints("/d/"),
    ),
    Case(
        "whiteout-of-nothing",
        "Whiteouts of what is not there, in folders that are not there.",
        [layers(LOW, Layer().file("d/.wh.gone", "").file("gone/deep/.wh.x", "").finish())],
        "look /d /gone",
        prints("/d/", '/d/a "low a"', '/d/b "low b"', "/gone/", "/gone/deep/", "/gone/deep/x missing"),
        Better(
            prints("/d/", '/d/a "low a"', '/d/b "low b"', "/gone/", "/gone/deep/"),
            "a whiteout of nothing leaves no name behind that a listing shows and nobody can open",
        ),
    ),
    Case(
        "whiteout-through-symlink",
        "A whiteout's folder is a symbolic link of a lower layer.",
        [
            layers(
                Layer().directory("d").file("d/a", "a").file("d/b", "b").symlink("l", "d").finish(),
                Layer().file("l/.wh.a", "").finish(),
            )
        ],
        "look /l /d",
        prints("/l/", "/l/a missing", "/d/", '/d/a "a"', '/d/b "b"'),
        Better(
            prints("/l -> d", "/d/", '/d/b "b"'),
            "the file is taken away; there it stays, and the link becomes a directory",
        ),
    ),
    Case(
        "whiteout-then-again",
        "A file is taken away by one layer and comes back in the next.",
        [layers(LOW, Layer().file("d/.wh.a", "").finish(), Layer().file("d/a", "again").finish())],
        "look /d",
        prints("/d/", '/d/a "again"', '/d/b "low b"'),
    ),
    Case(
        "whiteout-without-name",
        "A whiteout has nothing behind `.wh.`.",
        [layers(LOW, Layer().file("d/.wh.", "").finish())],
        "look /d",
        refused("pull"),
    ),
    Case(
        "whiteout-of-dot-dot",
        "A whiteout is of `..`.",
        [layers(LOW, Layer().file("d/.wh...", "").finish())],
        "look /d",
        refused("pull"),
    ),
    Case(
        "whiteout-of-dot",
        "A whiteout is of `.`.",
        [layers(LOW, Layer().file("d/.wh..", "").finish())],
        "look /d",
        refused("pull"),
    ),
    Case(
        "whiteout-as-directory",
        "A whiteout is written as a directory.",
        [layers(LOW, Layer().directory("d/.wh.a").finish())],
        "look /d",
        prints("/d/", '/d/b "low b"'),
    ),
    Case(
        "whiteout-with-content",
        "A whiteout has content and an owner.",
        [layers(LOW, Layer().file("d/.wh.a", "content", uid=7).file("d/c", "c").finish())],
        "look /d",
        prints("/d/", '/d/b "low b"', '/d/c "c"'),
    ),
    Case(
        "whiteout-of-aufs",
        "The archive has aufs's own files.",
        [
            layers(
                LOW,
                Layer()
                .directory(".wh..wh.plnk")
                .file(".wh..wh.plnk/1.2", "")
                .file(".wh..wh.aufs", "")
                .finish(),
            )
        ],
        "look /d /.wh..wh.plnk /.wh..wh.aufs",
        prints(
            "/d/",
            '/d/a "low a"',
            '/d/b "low b"',
            "/.wh..wh.plnk/",
            '/.wh..wh.plnk/1.2 ""',
            "/.wh..wh.aufs missing",
        ),
        Better(
            prints("/d/", '/d/a "low a"', '/d/b "low b"', "/.wh..wh.plnk missing", "/.wh..wh.aufs missing"),
            "they mean nothing outside of aufs and are left out",
        ),
    ),
    Case(
        "file-and-directory-by-turns",
        "A path is a directory, a file and a directory again in layers that follow each other.",
        [
            layers(
                LOW,
                Layer().file("d", "a file").finish(),
                Layer().directory("d").file("d/c", "c").finish(),
            )
        ],
        "look /d",
        prints("/d/", '/d/c "c"'),
    ),
)

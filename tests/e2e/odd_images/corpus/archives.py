"""What stands in a layer: paths twice, attributes, owners, times."""

from __future__ import annotations

from harness.image import LayerBuilder as Layer
from tests.e2e.odd_images.case import Better, Case, prints, refused
from tests.e2e.odd_images.draft import layers
from tests.e2e.odd_images.tars import (
    GNU,
    archive,
    base256,
    member,
    pax,
)

TWICE = (
    Case(
        "file-then-file",
        "A path is twice in a layer, both times a file.",
        [layers(Layer().file("f", "first", 0o600).file("f", "second").finish())],
        "look /f",
        prints('/f "second"'),
    ),
    Case(
        "file-then-directory",
        "A path is twice in a layer: a file, then a directory with something in it.",
        [layers(Layer().file("p", "first").directory("p").file("p/in", "in").finish())],
        "look /p",
        prints("/p/", '/p/in "in"'),
    ),
    Case(
        "directory-then-file",
        "A path is twice in a layer: a directory with something in it, then a file.",
        [layers(Layer().directory("p").file("p/in", "in").file("p", "second").finish())],
        "look /p",
        prints('/p "second"'),
    ),
    Case(
        "directory-then-directory",
        "A directory is twice in a layer, with another mode and owner.",
        [layers(Layer().directory("p", 0o700).file("p/in", "in").directory("p", 0o751, uid=7).finish())],
        "look /p",
        prints("/p/ mode 751 owner 7:0", '/p/in "in"'),
    ),
    Case(
        "symlink-then-file",
        "A path is twice in a layer: a symbolic link to a file, then a file.",
        [layers(Layer().file("to", "to").symlink("p", "to").file("p", "second").finish())],
        "look /p /to",
        prints('/p "second"', '/to "to"'),
    ),
    Case(
        "symlink-then-directory",
        "A path is twice in a layer: a symbolic link to a directory, then a directory.",
        [layers(Layer().directory("to").symlink("p", "to").directory("p").file("p/in", "in").finish())],
        "look /p /to",
        prints("/p/", '/p/in "in"', "/to/"),
    ),
    Case(
        "directory-then-symlink",
        "A path is twice in a layer: a directory with something in it, then a symbolic link.",
        [layers(Layer().directory("p").file("p/in", "in").symlink("p", "bin").finish())],
        "look /p",
        refused("pull"),
        Better(prints("/p -> bin"), "the last of two entries counts, as for all other kinds"),
    ),
    Case(
        "file-then-hard-link",
        "A path is twice in a layer: a file, then a hard link to another one.",
        [
            layers(
                Layer().file("to", "to").file("p", "first").member("p", b"1", 0o644, linkname="to").finish()
            )
        ],
        "look /p /to",
        prints('/p "to" links 2', '/to "to" links 2'),
    ),
    Case(
        "hard-link-then-file",
        "A path is twice in a layer: a hard link, then a file, which must not be written through the link.",
        [
            layers(
                Layer().file("to", "to").member("p", b"1", 0o644, linkname="to").file("p", "second").finish()
            )
        ],
        "look /p /to",
        prints('/p "second"', '/to "to"'),
    ),
    Case(
        "hard-link-to-itself",
        "A file is followed by a hard link of the same name to itself.",
        [layers(Layer().file("f", "first").member("f", b"1", 0o644, linkname="f").finish())],
        "look /f",
        refused("pull"),
    ),
    Case(
        "twice-with-other-spellings",
        "A path is three times in a layer, spelt `d/f`, `./d/f` and `/d//f`.",
        [layers(Layer().file("d/f", "first").file("./d/f", "second").file("/d//f", "third").finish())],
        "look /d",
        prints("/d/", '/d/f "third"'),
    ),
)

ATTRIBUTES = (
    Case(
        "xattr-user",
        "A file and a directory have `user.` attributes.",
        [
            layers(
                Layer()
                .directory("d", pax_headers={"SCHILY.xattr.user.colour": "blue"})
                .file("d/f", "", pax_headers={"SCHILY.xattr.user.empty": "", "SCHILY.xattr.user.a=b": "c"})
                .finish()
            )
        ],
        "look /d",
        prints('/d/ user.colour="blue"', '/d/f "" user.a="b=c" user.empty=""'),
    ),
    Case(
        "xattr-user-on-symlink",
        "A symbolic link has a `user.` attribute, which Linux knows for files and directories only.",
        [
            layers(
                Layer()
                .member("l", b"2", 0o777, linkname="x", pax_headers={"SCHILY.xattr.user.a": "b"})
                .finish()
            )
        ],
        "look /l",
        prints("/l -> x"),
    ),
    Case(
        "xattr-libarchive",
        "An attribute is written as libarchive does, in base64.",
        [layers(Layer().file("f", "", pax_headers={"LIBARCHIVE.xattr.user.a": "Ymx1ZQ"}).finish())],
        "look /f",
        prints('/f ""'),
        Better(prints('/f "" user.a="blue"'), "the attribute is set: bsdtar writes no other form"),
    ),
    Case(
        "xattr-unknown-namespace",
        "An attribute is in a namespace that Linux does not have.",
        [layers(Layer().file("f", "f", pax_headers={"SCHILY.xattr.com.apple.quarantine": "x"}).finish())],
        "look /f",
        prints('/f "f"'),
    ),
    Case(
        "xattr-trusted",
        "A file has a `trusted.` attribute.",
        [layers(Layer().file("f", "f", pax_headers={"SCHILY.xattr.trusted.a": "b"}).finish())],
        "look /f",
        prints('/f "f"'),
    ),
    Case(
        "xattr-trusted-overlay-opaque",
        "A directory says by `trusted.overlay.opaque` that it hides the layers below.",
        [
            layers(
                Layer().directory("d").file("d/low", "low").finish(),
                Layer().directory("d", pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"}).finish(),
            )
        ],
        "look /d",
        prints("/d/", '/d/low "low"'),
    ),
    Case(
        "xattr-trusted-overlay-redirect",
        "A directory says by `trusted.overlay.redirect` that it is another one of the layers below.",
        [
            layers(
                Layer().directory("secret").file("secret/low", "low").finish(),
                Layer()
                .directory("d", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/secret"})
                .finish(),
            )
        ],
        "look /d /secret",
        prints("/d/", "/secret/", '/secret/low "low"'),
    ),
    Case(
        "xattr-user-overlay-opaque",
        "A directory says by `user.overlay.opaque`, as rootless overlays do, that it hides the layers below.",
        [
            layers(
                Layer().directory("d").file("d/low", "low").finish(),
                Layer().directory("d", pax_headers={"SCHILY.xattr.user.overlay.opaque": "y"}).finish(),
            )
        ],
        "ls /d",
        prints("low"),
    ),
    Case(
        "xattr-user-overlay-whiteout",
        "An empty file says by `user.overlay.whiteout` that it is a whiteout.",
        [
            layers(
                Layer().directory("d").file("d/low", "low").finish(),
                Layer()
                .directory("d", pax_headers={"SCHILY.xattr.user.overlay.opaque": "x"})
                .file("d/low", "", pax_headers={"SCHILY.xattr.user.overlay.whiteout": ""})
                .finish(),
            )
        ],
        "ls /d",
        prints("low"),
    ),
    Case(
        "file-capability",
        "A file has capabilities, a value with NULs and bytes over 127.",
        [
            layers(
                archive(
                    pax(("SCHILY.xattr.security.capability", b"\1\0\0\2\0\xa0\0\0" + bytes(12))),
                    member(b"f", b"f", mode=0o755),
                )
            )
        ],
        "look /f",
        prints(
            '/f "f" mode 755 '
            'security.capability="\\x01\\x00\\x00\\x02\\x00\\xa0\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00'
            '\\x00\\x00\\x00\\x00\\x00\\x00"'
        ),
    ),
    Case(
        "setuid-and-sticky",
        "Files and directories are setuid, setgid and sticky, and one file is nobody's.",
        [
            layers(
                Layer()
                .directory("d", 0o1777)
                .directory("d/g", 0o2755)
                .file("d/u", "u", 0o4755, uid=65534, gid=33)
                .file("d/none", "", 0o000)
                .finish()
            )
        ],
        "look /d",
        prints("/d/ mode 1777", "/d/g/ mode 2755", '/d/none "" mode 0', '/d/u "u" mode 4755 owner 65534:33'),
    ),
    Case(
        "mode-with-file-type",
        "Modes have the bits of the file's type too, as some archivers write them.",
        [layers(archive(member(b"d", kind=b"5", mode=0o040755), member(b"d/f", b"f", mode=0o100640)))],
        "look /d",
        prints("/d/", '/d/f "f" mode 640'),
    ),
    Case(
        "root-directory-mode",
        "The root itself is in the layer, with a mode of its own.",
        [layers(Layer().directory("./", 0o751).file("f", "f").finish())],
        "stat -c %a /",
        prints("755"),
        Better(prints("751"), "the root has the mode that its archive says"),
    ),
    Case(
        "root-directory-is-a-file",
        "The archive names the root, as a file.",
        [layers(archive(member(b"./", b"x"), member(b".", b"y"), member(b"f", b"f")))],
        "look /f",
        prints('/f "f"'),
    ),
    Case(
        "owner-names-ignored",
        "Owners have names that mean other ids in the image.",
        [layers(Layer().file("f", "f", uid=7, gid=8, uname="nobody", gname="daemon").finish())],
        "look /f",
        prints('/f "f" owner 7:8'),
    ),
    Case(
        "owner-large",
        "Owners are over 2³¹, in PAX records.",
        [layers(Layer().file("f", "f", uid=2_147_483_648, gid=4_294_967_294).finish())],
        "look /f",
        prints('/f "f" owner 2147483648:4294967294'),
    ),
    Case(
        "owner-base-256",
        "Owners are over 2²¹, as GNU tar writes them.",
        [
            layers(
                archive(member(b"f", b"f", uid=base256(3_000_000, 8), gid=base256(4_000_000, 8), magic=GNU))
            )
        ],
        "look /f",
        prints('/f "f" owner 3000000:4000000'),
    ),
    Case(
        "owner-minus-one",
        "The owner is 2³²-1, which chown(2) takes as leave it.",
        [layers(Layer().file("f", "f", uid=4_294_967_295).finish())],
        "look /f",
        prints('/f "f"'),
        Better(refused("pull"), "chown(2) takes -1 as leave it: the file, setuid perhaps, would be root's"),
    ),
    Case(
        "owner-over-32-bits",
        "The owner does not fit 32 bits.",
        [layers(Layer().file("f", "f", uid=4_294_967_296 + 7).finish())],
        "look /f",
        prints('/f "f" owner 7:0'),
        Better(refused("pull"), "cut to 32 bits the file would be somebody else's, root's even"),
    ),
)

TIMES = (
    Case(
        "time-negative",
        "A file is from before 1970.",
        [layers(Layer().file("f", "f", mtime=-86400).finish())],
        "look -t /f",
        prints('/f "f" at 0.000000000'),
        Better(prints('/f "f" at -86400.000000000'), "the time is kept"),
    ),
    Case(
        "time-fraction",
        "Times have fractions of a second.",
        [layers(Layer().file("f", "f", pax_headers={"mtime": "1600000000.123456789"}).finish())],
        "look -t /f",
        prints('/f "f" at 1600000000.123456789'),
    ),
    Case(
        "time-of-directory",
        "A directory's time stays as it is though files are added after it.",
        [layers(Layer().directory("d", mtime=1_500_000_000).file("d/f", "f", mtime=1_600_000_000).finish())],
        "look -t /d",
        prints("/d/ at 1500000000.000000000", '/d/f "f" at 1600000000.000000000'),
    ),
    Case(
        "time-far-future",
        "A file is from the year 2600, after what ext4 can store.",
        [layers(Layer().file("f", "f", mtime=19_880_899_200).finish())],
        "look /f",
        prints('/f "f"'),
    ),
)

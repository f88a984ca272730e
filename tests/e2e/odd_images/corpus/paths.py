"""Names in layers, and the folders they lead through."""

from __future__ import annotations

from harness.image import LayerBuilder as Layer
from tests.e2e.odd_images.case import Better, Case, prints, refused
from tests.e2e.odd_images.draft import layers
from tests.e2e.odd_images.tars import GNU, archive, member, pax

DEEP = "/".join(f"level{number:03}" for number in range(200))


NAMES = (
    Case(
        "name-absolute",
        "Names begin with a slash.",
        [layers(Layer().directory("/d").file("/d/f", "f").finish())],
        "look /d",
        prints("/d/", '/d/f "f"'),
    ),
    Case(
        "name-with-dots-and-slashes",
        "Names begin with `./`, and have `/./` and `//` in them.",
        [layers(Layer().directory("./d/").file("./d/./f", "f").file("d//g", "g").finish())],
        "look /d",
        prints("/d/", '/d/f "f"', '/d/g "g"'),
    ),
    Case(
        "name-with-dot-dot",
        "A name has `..` in it that stays inside.",
        [layers(Layer().directory("d").file("d/../d/f", "f").finish())],
        "look /d",
        prints("/d/", '/d/f "f"'),
    ),
    Case(
        "name-above-root",
        "A name leads above the root.",
        [layers(Layer().file("../../d/f", "f").finish())],
        "look /d",
        prints("/d/", '/d/f "f"'),
    ),
    Case(
        "name-above-root-absolute",
        "An absolute name has more `..` than folders.",
        [layers(Layer().file("/d/../../../d/f", "f").finish())],
        "look /d",
        prints("/d/", '/d/f "f"'),
    ),
    Case(
        "name-dot-dot-alone",
        "A directory is named `..`.",
        [layers(Layer().directory("..", 0o700).file("f", "f").finish())],
        "look /f",
        prints('/f "f"'),
    ),
    Case(
        "name-file-with-slash",
        "A file's name ends in a slash.",
        [layers(archive(member(b"p/", b"content")))],
        "look /p",
        prints('/p "content"'),
    ),
    Case(
        "name-symlink-with-slash",
        "A symbolic link's and a fifo's names end in a slash.",
        [layers(archive(member(b"l/", kind=b"2", link=b"bin", mode=0o777), member(b"p/", kind=b"6")))],
        "look /l /p",
        prints("/l -> bin", "/p fifo"),
    ),
    Case(
        "name-odd-characters",
        "Names have a newline, blanks, a backslash, a star, a colon and a comma in them.",
        [layers(Layer().file("d/new\nline", "").file("d/ a\\b*:,", "").file("d/-rf", "").finish())],
        "look /d",
        prints("/d/", '/d/ a\\x5cb*:, ""', '/d/-rf ""', '/d/new\\x0aline ""'),
    ),
    Case(
        "name-utf-8",
        "Names are UTF-8, in PAX records, composed and decomposed.",
        [layers(Layer().file("d/h\u00e9", "").file("d/he\u0301", "").file("d/日本", "").finish())],
        "look /d",
        prints("/d/", '/d/he\\xcc\\x81 ""', '/d/h\\xc3\\xa9 ""', '/d/\\xe6\\x97\\xa5\\xe6\\x9c\\xac ""'),
    ),
    Case(
        "name-not-utf-8",
        "A name is Latin-1, in the plain header.",
        [layers(archive(member(b"d/h\xe9", b"")))],
        "look /d",
        prints("/d/", '/d/h\\xe9 ""'),
    ),
    Case(
        "name-not-utf-8-pax",
        "A name and a link's target are Latin-1, in PAX records.",
        [
            layers(
                archive(
                    pax(("hdrcharset", "BINARY"), ("path", b"d/h\xe9")),
                    member(b"x", b""),
                    pax(("linkpath", b"h\xe9")),
                    member(b"d/l", kind=b"2", mode=0o777),
                )
            )
        ],
        "look /d",
        prints("/d/", '/d/h\\xe9 ""', "/d/l -> h\\xe9"),
    ),
    Case(
        "name-255-bytes",
        "A name has 255 bytes, all that Linux can store.",
        [layers(Layer().file("d/" + "n" * 255, "f").finish())],
        "ls /d | wc -c",
        prints("256"),
    ),
    Case(
        "name-256-bytes",
        "A name has 256 bytes, one more than Linux can store.",
        [layers(Layer().file("d/" + "n" * 256, "f").finish())],
        "ls /d | wc -c",
        refused("pull"),
    ),
    Case(
        "name-deep",
        "A file lies 200 folders deep.",
        [layers(Layer().file(f"{DEEP}/f", "f").finish())],
        "find /level000 -type f | tr -cd / | wc -c",
        prints("201"),
    ),
    Case(
        "name-gnu-long",
        "Long names of a file and a link's target, as GNU tar writes them.",
        [
            layers(
                archive(
                    member(b"././@LongLink", b"d/" + b"n" * 150 + b"\0", b"L", magic=GNU),
                    member(b"d/cut", b"f", magic=GNU),
                    member(b"././@LongLink", b"t" * 150 + b"\0", b"K", magic=GNU),
                    member(b"d/l", kind=b"2", mode=0o777, magic=GNU),
                )
            )
        ],
        "ls -l /d | sed 's/.*:.. //' | wc -c; readlink /d/l | wc -c",
        prints("429", "151"),
    ),
    Case(
        "name-ustar-prefix",
        "A long name is cut in two, as ustar does.",
        [layers(archive(member(b"name", b"f", tail=b"prefix/of/it".ljust(155, b"\0"))))],
        "look /prefix",
        prints("/prefix/", "/prefix/of/", "/prefix/of/it/", '/prefix/of/it/name "f"'),
    ),
    Case(
        "name-empty",
        "A member has no name.",
        [layers(archive(member(b"", b"x"), member(b"f", b"f")))],
        "look /f",
        prints('/f "f"'),
    ),
    Case(
        "name-pax-with-nul",
        "A PAX record's name has a NUL in it.",
        [layers(archive(pax(("path", b"d/f\0g")), member(b"x", b"f")))],
        "look /d",
        refused("pull"),
    ),
    Case(
        "pax-global-comment",
        "A global PAX header with a comment, as git archive writes it.",
        [layers(archive(pax(("comment", "0123456789abcdef"), kind=b"g"), member(b"f", b"f")))],
        "look /f /pax_global_header",
        prints('/f "f"', "/pax_global_header missing"),
    ),
    Case(
        "pax-global-path",
        "A global PAX header gives all that follow a name and an owner.",
        [layers(archive(pax(("path", "evil"), ("uid", "7"), kind=b"g"), member(b"f", b"f")))],
        "look /f /evil",
        prints('/f "f"', "/evil missing"),
    ),
    Case(
        "pax-unknown-keys",
        "PAX records have keys that nobody knows, and one is there twice.",
        [layers(archive(pax(("VENDOR.x", "y"), ("path", "first"), ("path", "f")), member(b"x", b"f")))],
        "look /f /first",
        prints('/f "f"', "/first missing"),
    ),
    Case(
        "pax-malformed",
        "A PAX record's length is wrong.",
        [layers(archive(member(b"pax", b"99 path=f\n", b"x"), member(b"f", b"f")))],
        "look /f",
        refused("pull"),
    ),
)

PARENTS = (
    Case(
        "parents-missing",
        "A file's folders are in no layer.",
        [layers(Layer().file("a/b/c/f", "f", uid=7).finish())],
        "look /a",
        prints("/a/", "/a/b/", "/a/b/c/", '/a/b/c/f "f" owner 7:0'),
    ),
    Case(
        "parents-from-below",
        "A file's folder is in a lower layer only, with a mode and an owner.",
        [layers(Layer().directory("d", 0o1770, uid=7, gid=8).finish(), Layer().file("d/f", "f").finish())],
        "look /d",
        prints("/d/ mode 1770 owner 7:8", '/d/f "f"'),
    ),
    Case(
        "parent-symlink",
        "A name leads through a symbolic link of the same layer.",
        [layers(Layer().directory("to").symlink("l", "to").file("l/f", "f").finish())],
        "look /l /to",
        prints("/l -> to", "/to/", '/to/f "f"'),
    ),
    Case(
        "parent-symlink-below",
        "A name leads through an absolute symbolic link of a lower layer, as /bin does after a usr merge.",
        [
            layers(
                Layer().directory("usr/to").symlink("l", "/usr/to").finish(),
                Layer().file("l/f", "f").finish(),
            )
        ],
        "look /l /usr/to",
        prints("/l/", '/l/f "f"', "/usr/to/"),
        Better(
            prints("/l -> /usr/to", "/usr/to/", '/usr/to/f "f"'),
            "a link of a lower layer stays what it is; there it is covered by a directory, and /bin "
            "would lose all but /f",
        ),
    ),
    Case(
        "parent-symlink-out",
        "A name leads through symbolic links that point above the root.",
        [
            layers(
                Layer()
                .directory("tmp")
                .symlink("l", "../../../../tmp")
                .file("l/odd-f", "f")
                .symlink("m", "/tmp/../../..")
                .file("m/odd-g", "g")
                .finish()
            )
        ],
        "look /tmp/odd-f /odd-g",
        prints('/tmp/odd-f "f"', '/odd-g "g"'),
    ),
    Case(
        "parent-symlink-to-nothing",
        "A name leads through a symbolic link to what is not there.",
        [layers(Layer().symlink("l", "gone/deep").file("l/f", "f").finish())],
        "look /l /gone",
        prints("/l -> gone/deep", "/gone/", "/gone/deep/", '/gone/deep/f "f"'),
    ),
    Case(
        "parent-symlink-loop",
        "A name leads through symbolic links to one another.",
        [layers(Layer().symlink("a", "b").symlink("b", "a").file("a/f", "f").finish())],
        "look /a",
        refused("pull"),
    ),
    Case(
        "parent-file",
        "A name leads through a file of the same layer.",
        [layers(Layer().file("p", "p").file("p/f", "f").finish())],
        "look /p",
        refused("pull"),
    ),
    Case(
        "parent-file-below",
        "A name leads through what is a file in a lower layer.",
        [layers(Layer().file("p", "p").finish(), Layer().file("p/f", "f").finish())],
        "look /p",
        prints("/p/", '/p/f "f"'),
    ),
    Case(
        "directory-over-symlink-below",
        "A directory stands where a lower layer has a symbolic link to one.",
        [
            layers(
                Layer().directory("to").file("to/in", "in").symlink("l", "to").finish(),
                Layer().directory("l").file("l/f", "f").finish(),
            )
        ],
        "look /l /to",
        prints("/l/", '/l/f "f"', "/to/", '/to/in "in"'),
    ),
)

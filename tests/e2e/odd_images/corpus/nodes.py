"""Devices, unusual types and sparse files in layers."""

from __future__ import annotations

from harness.image import LayerBuilder as Layer
from tests.e2e.odd_images.case import Better, Case, prints, refused
from tests.e2e.odd_images.draft import layers
from tests.e2e.odd_images.tars import (
    GNU,
    archive,
    member,
    sparse_gnu,
    sparse_pax_0_0,
    sparse_pax_0_1,
    sparse_pax_1_0,
)

NODES = (
    Case(
        "devices",
        "The image has device nodes and a fifo outside of /dev.",
        [
            layers(
                Layer()
                .member("d/null", b"3", 0o666, devmajor=1, devminor=3)
                .member("d/disk", b"4", 0o660, devmajor=259, devminor=4097, gid=6)
                .member("d/fifo", b"6", 0o600)
                .finish()
            )
        ],
        "look /d",
        prints(
            "/d/",
            "/d/disk block 259:4097 mode 660 owner 0:6",
            "/d/fifo fifo mode 600",
            "/d/null char 1:3 mode 666",
        ),
    ),
    Case(
        "device-0-0-over-file",
        "A character device 0:0, overlayfs's own whiteout, stands where a lower layer has a file.",
        [
            layers(
                Layer().directory("d").file("d/low", "low").finish(),
                Layer().member("d/low", b"3", 0o644, devmajor=0, devminor=0).file("d/f", "f").finish(),
            )
        ],
        "look /d",
        prints("/d/", '/d/f "f"'),
        Better(
            prints("/d/", '/d/f "f"', '/d/low "low"'),
            "only `.wh.` hides what is below: such a device must not act as a whiteout",
        ),
    ),
    Case(
        "device-0-0-alone",
        "A character device 0:0 where nothing is below, as buildah and overlay diffs left them.",
        [layers(Layer().file("d/f", "f").member("d/zero", b"3", 0o644, devmajor=0, devminor=0).finish())],
        "look /d",
        prints("/d/", '/d/f "f"', "/d/zero missing"),
        Better(prints("/d/", '/d/f "f"'), "it is left out; there the name is listed and cannot be opened"),
    ),
    Case(
        "socket",
        "A socket, which tar has no type for, is written as GNU tar's unknown type.",
        [layers(archive(member(b"s", kind=b"s"), member(b"f", b"f")))],
        "look /s /f",
        refused("pull"),
    ),
    Case(
        "contiguous-file",
        "A file is of type 7, contiguous, which POSIX says to take as a file.",
        [layers(archive(member(b"f", b"f", b"7")))],
        "look /f",
        refused("pull"),
        Better(prints('/f "f"'), "POSIX says to take it as a file"),
    ),
    Case(
        "old-file-type",
        "A file is of type NUL and a directory is told by its slash alone, as before POSIX.",
        [
            layers(
                archive(
                    member(b"d/", kind=b"\0", magic=bytes(8)), member(b"d/f", b"f", b"\0", magic=bytes(8))
                )
            )
        ],
        "look /d",
        prints("/d/ mode 644", '/d/f "f"'),
    ),
    Case(
        "gnu-volume-header",
        "The archive begins with GNU tar's label.",
        [layers(archive(member(b"label", kind=b"V", magic=GNU), member(b"f", b"f", magic=GNU)))],
        "look /f",
        refused("pull"),
    ),
    Case(
        "directory-with-size",
        "A directory's header has a size, and no content follows.",
        [layers(archive(member(b"d", kind=b"5", size=512, mode=0o755), member(b"d/f", b"f")))],
        "look /d",
        prints("/d/", '/d/f "f"'),
    ),
    Case(
        "symlink-with-size",
        "A symbolic link's header has a size, and no content follows.",
        [layers(archive(member(b"l", kind=b"2", link=b"f", size=512, mode=0o777), member(b"f", b"f")))],
        "look /l /f",
        prints("/l -> f", '/f "f"'),
    ),
)

SPARSE_COMMAND = "stat -c %s /f; head -c 4 /f; tail -c 4 /f; echo; tr -d '\\0' </f"

SPARSE = (
    Case(
        "sparse-pax-0.0",
        "A sparse file in the first of GNU tar's PAX formats.",
        [layers(sparse_pax_0_0("f"))],
        SPARSE_COMMAND,
        prints("8196", "headtail", "headtail"),
    ),
    Case(
        "sparse-pax-0.1",
        "A sparse file in the second of GNU tar's PAX formats.",
        [layers(sparse_pax_0_1("f"))],
        SPARSE_COMMAND,
        prints("8196", "headtail", "headtail"),
    ),
    Case(
        "sparse-pax-1.0",
        "A sparse file in the third of GNU tar's PAX formats, which it writes today.",
        [layers(sparse_pax_1_0("f"))],
        SPARSE_COMMAND,
        prints("8196", "headtail", "headtail"),
    ),
    Case(
        "sparse-gnu",
        "A sparse file in GNU tar's old format, type S.",
        [layers(sparse_gnu("f"))],
        SPARSE_COMMAND,
        refused("pull"),
        Better(prints("8196", "headtail", "headtail"), "read as the newer formats of sparse files are"),
    ),
)

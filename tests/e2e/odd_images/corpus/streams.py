"""How a layer is wrapped: compressions, their ends, and types that do not tell the truth."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct

import zstandard

from harness.image import LayerBuilder as Layer
from tests.e2e.odd_images.case import Better, Case, prints, refused
from tests.e2e.odd_images.draft import DOCKER, TAR_LAYER, ZSTD_LAYER, layers, sent
from tests.e2e.odd_images.tars import END, archive, member

TAR = Layer().file("f", "f").finish()
NO_END = member(b"f", b"f")
SKIPPED = struct.pack("<II", 0x184D2A50, 4) + b"skip"


def gzip_members(tar: bytes) -> bytes:
    half = len(tar) // 2
    return gzip.compress(tar[:half]) + gzip.compress(b"") + gzip.compress(tar[half:])


def gzip_with_fields(tar: bytes) -> bytes:
    """With a file's name in its header, as the gzip command writes."""
    sink = io.BytesIO()
    with gzip.GzipFile("layer.tar", "wb", fileobj=sink, mtime=0) as packer:
        packer.write(tar)
    return sink.getvalue()


def zstd_frames(tar: bytes) -> bytes:
    half = len(tar) // 2
    return zstandard.compress(tar[:half]) + zstandard.compress(b"") + zstandard.compress(tar[half:])


def zstd_long(tar: bytes) -> bytes:
    """A frame that says it needs 64 MiB; its content size is left out, or that would count instead."""
    options = zstandard.ZstdCompressionParameters(window_log=26, write_content_size=False, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=options).compressobj()
    return bytes(packer.compress(tar) + packer.flush())


GZIP = (
    Case(
        "gzip-members",
        "A gzip stream has several members, one of them empty, as pigz and eStargz write.",
        [sent(gzip_members)],
        "look /f",
        prints('/f "f"'),
    ),
    Case(
        "gzip-header-fields",
        "A gzip header has a file's name in it.",
        [sent(gzip_with_fields)],
        "look /f",
        prints('/f "f"'),
    ),
    Case(
        "gzip-trailing-garbage",
        "Bytes that are not gzip follow a gzip stream.",
        [sent(lambda tar: gzip.compress(tar) + b"garbage behind the end")],
        "look /f",
        refused("pull"),
    ),
    Case(
        "gzip-trailing-zeros",
        "Zeros follow a gzip stream, as padding on a tape.",
        [sent(lambda tar: gzip.compress(tar) + bytes(1024))],
        "look /f",
        refused("pull"),
        Better(prints('/f "f"'), "padding is no content; gzip(1) takes it too"),
    ),
    Case(
        "gzip-cut-off",
        "A gzip stream ends in the middle, and its digest is right.",
        [sent(lambda tar: gzip.compress(tar)[:-40])],
        "look /f",
        refused("pull"),
    ),
    Case(
        "gzip-wrong-checksum",
        "A gzip stream's own checksum is wrong.",
        [sent(lambda tar: gzip.compress(tar)[:-8] + tar[:4] + gzip.compress(tar)[-4:])],
        "look /f",
        refused("pull"),
    ),
    Case(
        "gzip-type-plain-tar",
        "A layer is a plain tar and is said to be gzip.",
        [sent(bytes)],
        "look /f",
        prints('/f "f"'),
    ),
    Case(
        "gzip-type-zstd",
        "A layer is zstd and is said to be gzip.",
        [sent(zstandard.compress)],
        "look /f",
        prints('/f "f"'),
    ),
    Case(
        "tar-type-gzip",
        "A layer is gzip and is said to be a plain tar.",
        [sent(gzip.compress, TAR_LAYER)],
        "look /f",
        refused("pull"),
        Better(prints('/f "f"'), "a layer is taken by its content, which the DiffID proves"),
    ),
    Case(
        "docker-tar-type-gzip",
        "A layer is gzip and has docker's type for an uncompressed one, as docker once sent it.",
        [sent(gzip.compress, f"{DOCKER}.image.rootfs.diff.tar")],
        "look /f",
        prints('/f "f"'),
    ),
    Case(
        "docker-zstd-type",
        "A layer is zstd, under a docker type that nobody has specified.",
        [sent(zstandard.compress, f"{DOCKER}.image.rootfs.diff.tar.zstd")],
        "look /f",
        prints('/f "f"'),
    ),
)

OTHERS = (
    Case(
        "plain-tar",
        "A layer is not compressed and says so.",
        [sent(bytes, TAR_LAYER)],
        "look /f",
        prints('/f "f"'),
    ),
    Case(
        "zstd-skippable-frames",
        "A zstd stream begins and ends with frames to skip, as zstd:chunked writes.",
        [sent(lambda tar: SKIPPED + zstandard.compress(tar) + SKIPPED, ZSTD_LAYER)],
        "look /f",
        prints('/f "f"'),
    ),
    Case(
        "zstd-frames",
        "A zstd stream has several frames, one of them empty.",
        [sent(zstd_frames, ZSTD_LAYER)],
        "look /f",
        prints('/f "f"'),
    ),
    Case(
        "zstd-long-window",
        "A zstd stream needs a window of 64 MiB, as zstd --long writes.",
        [sent(zstd_long, ZSTD_LAYER)],
        "look /f",
        prints('/f "f"'),
    ),
    Case(
        "zstd-trailing-garbage",
        "Bytes that are not zstd follow a zstd stream.",
        [sent(lambda tar: zstandard.compress(tar) + b"garbage behind the end", ZSTD_LAYER)],
        "look /f",
        refused("pull"),
    ),
    Case(
        "bzip2",
        "A layer is bzip2.",
        [sent(bz2.compress, f"{TAR_LAYER}+bzip2")],
        "look /f",
        refused("pull"),
    ),
    Case(
        "xz-under-gzip-type",
        "A layer is xz and is said to be gzip.",
        [sent(lzma.compress)],
        "look /f",
        refused("pull"),
    ),
    Case(
        "not-an-archive",
        "A layer is text.",
        [layers(b"hello " * 1000)],
        "look /bin/sh",
        refused("pull"),
    ),
)

ENDS = (
    Case(
        "no-end-of-archive",
        "An archive ends without its two empty blocks.",
        [layers(NO_END)],
        "look /f",
        prints('/f "f"'),
    ),
    Case(
        "one-block-at-the-end",
        "An archive ends with one empty block instead of two.",
        [layers(NO_END + bytes(512))],
        "look /f",
        prints('/f "f"'),
    ),
    Case(
        "no-padding-of-last-file",
        "An archive ends with the last byte of its last file.",
        [layers(NO_END[: 512 + 1])],
        "look /f",
        prints('/f "f"'),
    ),
    Case(
        "cut-in-a-file",
        "An archive ends in the middle of a file, and its DiffID is right.",
        [layers(archive(member(b"f", b"f"), member(b"g", b"g" * 2000))[: 512 * 4])],
        "look /f /g",
        refused("pull"),
    ),
    Case(
        "cut-in-a-header",
        "An archive ends in the middle of a header.",
        [layers(NO_END + member(b"g", b"g")[:100])],
        "look /f /g",
        refused("pull"),
    ),
    Case(
        "bytes-after-the-end",
        "Bytes other than zeros follow the end of an archive; the DiffID counts them.",
        [layers(archive(member(b"f", b"f")) + b"behind the end" * 1000)],
        "look /f",
        prints('/f "f"'),
    ),
    Case(
        "two-archives",
        "A second archive follows the end of the first.",
        [layers(archive(member(b"f", b"f")) + archive(member(b"g", b"g")))],
        "look /f /g",
        prints('/f "f"', "/g missing"),
    ),
    Case(
        "wrong-header-checksum",
        "A header's checksum is wrong.",
        [layers(archive(member(b"f", b"f"), b"?" + member(b"g", b"g")[1:]))],
        "look /f /g",
        refused("pull"),
    ),
    Case(
        "empty-archive",
        "A layer in the middle is an archive without members.",
        [layers(Layer().file("f", "low").finish(), END, Layer().file("g", "high").finish())],
        "look /f /g",
        prints('/f "low"', '/g "high"'),
    ),
    Case(
        "layer-of-no-bytes",
        "A layer is compressed nothing.",
        [sent(gzip.compress, tar=b""), layers(TAR)],
        "look /f",
        prints('/f "f"'),
    ),
    Case(
        "blob-of-no-bytes",
        "A layer's blob has no bytes.",
        [sent(bytes, TAR_LAYER, tar=b""), layers(TAR)],
        "look /f",
        prints('/f "f"'),
    ),
)

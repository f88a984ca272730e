"""Frames: cut anywhere they read the same; nonsense is refused, never crashed on."""

from __future__ import annotations

import hashlib
import struct
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phantom_cri.streaming import frames
from phantom_cri.streaming.frames import FrameReader, HeaderReader, HeaderWriter, ProtocolViolation


class Recorder:
    """A `FrameTaker` that joins the parts of each DATA frame again."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def take_data(self, stream_id: int, chunk: memoryview) -> None:
        assert len(chunk) > 0
        last = self.seen[-1] if self.seen else ()
        if last[:2] == ("data", stream_id):
            self.seen[-1] = ("data", stream_id, last[2] + bytes(chunk))  # type: ignore[operator]
        else:
            self.seen.append(("data", stream_id, bytes(chunk)))

    def take_end(self, stream_id: int) -> None:
        self.seen.append(("end", stream_id))

    def take_control(self, kind: int, flags: int, payload: bytes) -> None:
        self.seen.append(("control", kind, flags, payload))


def read(*pieces: bytes) -> list[tuple[object, ...]]:
    recorder = Recorder()
    reader = FrameReader(recorder)
    for piece in pieces:
        reader.feed(memoryview(piece))
    return recorder.seen


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[a:b] for a, b in pairwise(edges)]


data_frames = st.builds(
    lambda stream, payload, fin: struct.pack(">II", stream, fin << 24 | len(payload)) + payload,
    st.integers(0, 0x7FFF_FFFF),
    st.binary(max_size=300),
    st.booleans(),
)
control_frames = st.builds(
    lambda kind, flags, payload: frames.control(kind, payload, flags),
    st.integers(0, 0xFFFF),
    st.integers(0, 255),
    st.binary(max_size=300),
)


@given(st.lists(data_frames | control_frames, max_size=12), st.lists(st.integers(0, 1 << 20), max_size=40))
def test_however_it_is_cut_it_reads_the_same(parts: list[bytes], places: list[int]) -> None:
    stream = b"".join(parts)
    assert read(*cut(stream, places)) == read(stream)


@given(st.binary(max_size=2000), st.lists(st.integers(0, 1 << 20), max_size=20))
def test_random_bytes_are_frames_or_a_violation(noise: bytes, places: list[int]) -> None:
    def outcome(*pieces: bytes) -> object:
        recorder = Recorder()
        reader = FrameReader(recorder)
        try:
            for piece in pieces:
                reader.feed(memoryview(piece))
        except ProtocolViolation as violation:
            return recorder.seen, str(violation)
        return recorder.seen, ""

    assert outcome(noise) == outcome(*cut(noise, places))


def test_frames_read_back() -> None:
    stream = frames.data_header(5, 3) + b"abc" + frames.data_header(5, 0, frames.FIN) + frames.goaway(7, 1)
    assert read(stream) == [
        ("data", 5, b"abc"),
        ("end", 5),
        ("control", frames.GOAWAY, 0, struct.pack(">II", 7, 1)),
    ]


def test_a_frame_of_16_mib_is_not_held() -> None:
    recorder = Recorder()
    reader = FrameReader(recorder)
    reader.feed(memoryview(frames.data_header(1, frames.DATA_LIMIT)))
    sizes = []
    recorder.take_data = lambda stream_id, chunk: sizes.append(len(chunk))  # type: ignore[method-assign]
    for _ in range(16):
        reader.feed(memoryview(bytes(1 << 20))[: (1 << 20) - 1])
    assert sizes == [(1 << 20) - 1] * 16


@pytest.mark.parametrize(
    "header",
    [
        struct.pack(">HHI", 0x8002, 1, 10),
        struct.pack(">HHI", 0x8003, 1, frames.CONTROL_LIMIT + 1),
        struct.pack(">HHI", 0x8003, 4, 0xFFFFFF),
    ],
    ids=["version 2", "too big", "settings without end"],
)
def test_control_frames_that_are_refused_by_their_header(header: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        read(header)


def test_the_dictionary_is_the_one_of_the_draft() -> None:
    assert len(frames.DICTIONARY) == 1423
    digest = hashlib.sha256(frames.DICTIONARY).hexdigest()
    assert digest == "51d27341373f923f3cd88e1eb7162aeaa3723d7585ff2399201dc06498407f02"
    assert zlib.adler32(frames.DICTIONARY) == 0xE3C6A7C2


def block(raw: bytes) -> bytes:
    deflate = zlib.compressobj(zdict=frames.DICTIONARY)
    return deflate.compress(raw) + deflate.flush(zlib.Z_SYNC_FLUSH)


def pairs(headers: dict[str, str]) -> bytes:
    texts = [text.encode() for pair in headers.items() for text in pair]
    return struct.pack(">I", len(headers)) + b"".join(struct.pack(">I", len(t)) + t for t in texts)


names = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30)


@given(st.lists(st.dictionaries(names.map(str.lower), names, max_size=6), max_size=5))
def test_blocks_of_one_direction_share_a_stream(blocks: list[dict[str, str]]) -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_DEFAULT_STRATEGY, frames.DICTIONARY)
    reader = HeaderReader()
    for headers in blocks:
        sent = deflate.compress(pairs(headers)) + deflate.flush(zlib.Z_SYNC_FLUSH)
        assert reader.read(sent) == headers


def test_names_are_compared_in_lower_case() -> None:
    assert HeaderReader().read(block(pairs({"StreamType": "Data"}))) == {"streamtype": "Data"}


@given(st.binary(max_size=200))
def test_random_blocks_are_refused(noise: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        HeaderReader().read(noise)


@given(st.binary(max_size=200))
def test_random_contents_of_a_block_are_headers_or_refused(noise: bytes) -> None:
    try:
        headers = HeaderReader().read(block(noise))
    except ProtocolViolation:
        return
    assert all(isinstance(text, str) for pair in headers.items() for text in pair)


def test_a_bomb_in_a_header_block_is_refused_before_it_is_inflated() -> None:
    bomb = block(bytes(50 << 20))
    assert len(bomb) > frames.CONTROL_LIMIT  # so that a frame could not carry it all; a part of it can
    with pytest.raises(ProtocolViolation, match="too long"):
        HeaderReader().read(bomb[: frames.CONTROL_LIMIT])


def test_a_block_that_ends_its_zlib_stream_is_refused() -> None:
    deflate = zlib.compressobj(zdict=frames.DICTIONARY)
    with pytest.raises(ProtocolViolation):
        HeaderReader().read(deflate.compress(bytes(4)) + deflate.flush())


def test_our_blocks_are_an_empty_set_each() -> None:
    writer, inflate = HeaderWriter(), zlib.decompressobj(zdict=frames.DICTIONARY)
    assert [inflate.decompress(writer.empty()) for _ in range(3)] == [bytes(4)] * 3

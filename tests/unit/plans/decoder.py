"""A second reading of native/protocol.h: decodes a plan with nothing of ours but the op table's text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

NATIVE = Path(__file__).parents[3] / "phantom_cri" / "native"

_OP = re.compile(r'OP\( *(\d+), *([A-Z_]+),[A-Z, ]*"([a-z]*)", *"([a-z_ ]*)"')
SIGNATURES = {int(m[1]): (m[2], m[3], m[4].split()) for m in _OP.finditer((NATIVE / "ops.def").read_text())}


class Decoded(NamedTuple):
    header: dict[str, int]
    pid_namespace_of: str
    ops: list[tuple[str, dict[str, Any]]]


class Reader:
    def __init__(self, content: bytes, at: int, end: int) -> None:
        self.content, self.at, self.end = content, at, end

    def take(self, length: int) -> bytes:
        assert self.at + length <= self.end, "field leaves its op"
        taken = self.content[self.at : self.at + length]
        self.at += length
        return taken

    def number(self, size: int = 8, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def blob(self) -> bytes:
        length = self.number(4)
        assert self.number(4) == 0
        value = self.take(length)
        rest = self.take(1)
        while self.at % 8:
            rest += self.take(1)
        assert set(rest) == {0}, "padding"
        return value

    def text(self) -> str:
        value = self.blob()
        assert b"\0" not in value
        return value.decode("utf-8", "surrogateescape")

    def field(self, letter: str) -> Any:
        if letter in "ui":
            return self.number(signed=letter == "i")
        if letter == "s":
            return self.text()
        if letter == "b":
            return self.blob()
        assert letter == "v"
        count = self.number(4)
        assert self.number(4) == 0
        return tuple(self.text() for _ in range(count))


HEADER = ("magic", "size", "head_size", "kind", "flags", "op_count", "slot_count")
SLOTS = ("cgroup", "log", "kill", "oom", "stdin", "stdout", "stderr")


def decode(content: bytes) -> Decoded:
    reader = Reader(content, 0, len(content))
    header = {name: reader.number(4) for name in HEADER}
    assert header["magic"] == int.from_bytes(b"PHP1", "little")
    assert header["size"] == len(content)
    assert header.pop("head_size") == 240
    assert reader.number(4) == 0
    header["clone_flags"] = reader.number()
    header |= {name: reader.number(4, signed=True) for name in SLOTS}
    assert reader.number(4) == 0
    process = reader.take(168)
    assert process[160:] == bytes(8)
    ops = []
    for _ in range(header["op_count"]):
        number, zero, length = reader.number(2), reader.number(2), reader.number(4)
        assert zero == 0 and length % 8 == 0 and reader.at % 8 == 0
        name, signature, fields = SIGNATURES[number]
        body = Reader(content, reader.at, reader.at + length)
        ops.append(
            (name, {field: body.field(letter) for field, letter in zip(fields, signature, strict=True)})
        )
        assert body.at == body.end, f"{name} has bytes left"
        reader.take(length)
    assert reader.at == len(content), "bytes after the last op"
    return Decoded(header, process.rstrip(b"\0").decode(), ops)

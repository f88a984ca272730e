"""Reads phantom_cri/native/ops.def, the only table of ops."""

from __future__ import annotations

import re
from importlib import resources
from typing import NamedTuple

_ENTRY = re.compile(
    r'^OP\(\s*(\d+),\s*(\w+),(?:\s*\w+,){3}\s*"(\w*)",\s*"([^"]*)",\s*([\w |]+)\)', re.MULTILINE
)


class Row(NamedTuple):
    """One op of ops.def. `flags`: names of its PH_OP_* flags, as PH_OP_OPEN_CREATE."""

    name: str
    signature: str
    fields: tuple[str, ...]
    flags: tuple[str, ...]


def read_table() -> dict[int, Row]:
    """The ops of ops.def by number."""
    text = resources.files("phantom_cri.native").joinpath("ops.def").read_text(encoding="utf-8")
    return {
        int(number): Row(
            name, signature, tuple(fields.split()), () if flags == "0" else tuple(flags.split(" | "))
        )
        for number, name, signature, fields, flags in _ENTRY.findall(text)
    }

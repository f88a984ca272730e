"""What all ops have in common, and the words that several of them use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from phantom_cri.codec import Record
from phantom_cri.plans import constants

Slots = Mapping[int, str]


class Op(Record, frozen=True):
    """Base of all ops. `number`, `signature`, `op_name`: as in ops.def; `layout`: its fields and their
    encoders; `known_flags`: what its field `flags` may have, 0 where it has none.

    `describe` says what it does in the words of an error message; `slots` are the words for what the ops
    before it put into slots.
    """

    number: ClassVar[int] = 0
    signature: ClassVar[str] = ""
    layout: ClassVar[tuple[tuple[str, Callable[[Any], bytes]], ...]] = ()
    known_flags: ClassVar[int] = 0
    op_name: ClassVar[str] = ""

    def encode(self) -> bytes:
        """The op as `native/protocol.h` lays it out. Raises InvalidArgument on a NUL in a string."""
        body = b"".join([encoder(getattr(self, field)) for field, encoder in self.layout])
        return self.number.to_bytes(4, "little") + len(body).to_bytes(4, "little") + body

    @property
    def used_flags(self) -> int:
        """Those of ours, that a fragment of another release may not know."""
        return getattr(self, "flags", 0)

    def label(self) -> tuple[int, str] | None:
        """For ops that fill a slot: the slot and the words for what is in it now."""
        return None

    def describe(self, slots: Slots) -> str:
        raise NotImplementedError


def listed(words: Sequence[str], before: str = " ") -> str:
    return before + ", ".join(words) if words else ""


def namespaces_in_words(nstypes: int) -> str:
    kinds = constants.names(nstypes, constants.NAMESPACES)
    return f"{' and '.join(kinds)} namespace{'s' if len(kinds) > 1 else ''}"


def content(slot: int, slots: Slots) -> str:
    return slots.get(slot, f"slot {slot}")

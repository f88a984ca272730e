"""The base class of all ops, and wording that several of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from phantom_cri.codec import Record
from phantom_cri.plans import constants

Slots = Mapping[int, str]


class Op(Record, frozen=True):
    """Base of all ops. `number`, `signature`, `op_name`: as in ops.def; `layout`: its fields and their
    encoders; `known_flags`: valid bits of its field `flags`, 0 if it has none.

    `describe` returns what it does, as used in error messages; `slots`: descriptions of the slots' contents.
    """

    number: ClassVar[int] = 0
    signature: ClassVar[str] = ""
    layout: ClassVar[tuple[tuple[str, Callable[[Any], bytes]], ...]] = ()
    known_flags: ClassVar[int] = 0
    op_name: ClassVar[str] = ""

    def encode(self) -> bytes:
        """The op in the layout of native/protocol.h. Raises InvalidArgument on a NUL in a string."""
        body = b"".join([encoder(getattr(self, field)) for field, encoder in self.layout])
        return self.number.to_bytes(4, "little") + len(body).to_bytes(4, "little") + body

    @property
    def used_flags(self) -> int:
        """Its PH_OP_* flags, which a fragment of another release may not support."""
        return getattr(self, "flags", 0)

    def label(self) -> tuple[int, str] | None:
        """For ops that fill a slot: the slot and a description of its content."""
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

"""A fragment's protocol versions and features: its answer to HELLO (native/protocol.h, `struct ph_hello`).

A fragment may be of an earlier or a later release than the daemon. They use the newest protocol version that
both support, and of its features the daemon uses only those that the fragment lists.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import NamedTuple

from phantom_cri.errors import DataLoss, FailedPrecondition
from phantom_cri.fragments.message import FLAGS, Phase, Type
from phantom_cri.plans import constants
from phantom_cri.plans.ops import OPS
from phantom_cri.plans.plan import Plan

_HELLO = struct.Struct("<4I")
_FEATURE = struct.Struct("<2HI")


class Kind(IntEnum):
    REQUEST = 1
    OP = 2
    PLAN = 3


Feature = tuple[int, int]
"""(kind, number), as in `struct ph_feature`."""


class OtherVersion(FailedPrecondition):
    """There is no common protocol version with the fragment: it can only be shut down."""


class Hello(NamedTuple):
    """`version`: the newest common one. `lacks`: features of this daemon that the fragment lacks."""

    version: int
    phase: Phase
    lacks: Mapping[Feature, int]


OURS: dict[Feature, int] = {
    **{(Kind.REQUEST, type): FLAGS.get(type, 0) for type in Type if type < Type.OK},
    **{(Kind.OP, number): op.known_flags for number, op in OPS.items()},
    **{
        (Kind.PLAN, kind): constants.PLAN_FLAGS
        for kind in (constants.KIND_ADOPT, constants.KIND_CONTAINER, constants.KIND_EXEC)
    },
}
"""All features that this daemon uses, with the flags it uses."""

WHOLLY = -1
"""Instead of flags: the feature itself is missing."""


def read_hello(text: bytes) -> Hello:
    """Raises OtherVersion naming both ranges, DataLoss for a malformed answer."""
    if len(text) < _HELLO.size:
        raise DataLoss(f"a fragment answered hello with {len(text)} bytes, expected at least {_HELLO.size}")
    size, oldest, newest, phase = _HELLO.unpack_from(text)
    if size < _HELLO.size or size > len(text) or (len(text) - size) % _FEATURE.size:
        raise DataLoss(f"a fragment answered hello with {len(text)} bytes and a head of {size}")
    version = min(newest, constants.VERSION_NEWEST)
    if version < max(oldest, constants.VERSION_OLDEST):
        raise OtherVersion(
            f"the fragment speaks protocol {_span(oldest, newest)}, "
            f"this daemon {_span(constants.VERSION_OLDEST, constants.VERSION_NEWEST)}"
        )
    known = {(kind, number): flags for kind, number, flags in _FEATURE.iter_unpack(text[size:])}
    try:
        return Hello(version, Phase(phase), _lacking(known))
    except ValueError:
        raise DataLoss(f"a fragment is in unknown phase {phase}") from None


def _span(oldest: int, newest: int) -> str:
    return f"version {oldest}" if oldest == newest else f"versions {oldest} to {newest}"


def _lacking(known: Mapping[Feature, int]) -> dict[Feature, int]:
    found = {}
    for feature, flags in OURS.items():
        lacking = flags & ~known[feature] if feature in known else WHOLLY
        if lacking:
            found[feature] = lacking
    return found


def is_lacking(lacks: Mapping[Feature, int], feature: Feature, flags: int) -> bool:
    lacking = lacks.get(feature, 0)
    return lacking == WHOLLY or bool(flags & lacking)


def unknown_in(plan: Plan, lacks: Mapping[Feature, int]) -> Iterator[str]:
    """Descriptions of the parts of a plan that a fragment does not support."""
    if is_lacking(lacks, (Kind.PLAN, plan.kind), plan.flags):
        yield f"a plan of kind {plan.kind} with flags {plan.flags:#x}"
    for index, op in enumerate(plan.ops()):
        if is_lacking(lacks, (Kind.OP, op.number), op.used_flags):
            yield f"op {index}, {plan.describe()[index]} ({type(op).__name__}, number {op.number})"

"""Valid requests with some fields replaced by what a hostile or broken client would put there."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

LARGE = 1 << 16
TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "-",
            "..",
            "../../../etc/shadow",
            "a\0b",
            "a\nnameserver 6.6.6.6",
            "x" * LARGE,
            "/" * 4096,
            "%s%n{}${HOME}$(id)",
            "\u202e\U0001f4a9",
            "-1",
            "9" * 40,
            "0x10",
            "localhost/../x",
            "sha256:" + "0" * 64,
        ]
    ),
    st.text(max_size=6),
)
NUMBERS = [0, 1, -1, 65536, 2**31 - 1, -(2**31), 2**32, 2**63 - 1, -(2**63)]
RANGES = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}


def mutated(valid: Message) -> st.SearchStrategy[Message]:
    """`valid` with one to three of its fields, at any depth, set to something else or emptied."""
    return st.lists(_mutation(valid.DESCRIPTOR), min_size=1, max_size=3).map(
        lambda changes: _apply(valid, changes)
    )


Change = tuple[tuple[str, ...], Any]


def _mutation(descriptor: Any, depth: int = 0) -> st.SearchStrategy[Change]:
    """Where and what: None empties the field."""
    choices = [_field_mutation(field, depth) for field in descriptor.fields]
    return st.one_of(choices) if choices else st.just(((), None))


def _field_mutation(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Change]:
    here = st.one_of(st.none(), _values(field)).map(lambda value: ((field.name,), value))
    if field.message_type is None or field.message_type.GetOptions().map_entry or depth > 5:
        return here
    inner = st.deferred(lambda: _mutation(field.message_type, depth + 1)).map(
        lambda change: ((field.name, *change[0]), change[1])
    )
    return st.one_of(inner, inner, here)


def _values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return st.one_of(st.dictionaries(TEXTS, TEXTS, max_size=3), st.just({"k" * 300: "v" * LARGE}))
    if field.message_type is not None:
        return st.none()
    return st.lists(_scalar(field), max_size=3) if field.is_repeated else _scalar(field)


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.type == FieldDescriptor.TYPE_STRING:
        return TEXTS
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=8)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_ENUM:
        return st.integers(-2, 70)
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return st.floats()
    low, high = RANGES[field.type]
    return st.sampled_from([number for number in NUMBERS if low <= number <= high])


def _apply(valid: Message, changes: list[Change]) -> Message:
    message = type(valid)()
    message.CopyFrom(valid)
    for path, value in changes:
        _set(message, path, value)
    return message


def _set(message: Any, path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        inner = getattr(message, name)
        message = inner if isinstance(inner, Message) else inner[0] if len(inner) else inner.add()
        message.SetInParent()
    if not path:
        return
    field = message.DESCRIPTOR.fields_by_name[path[-1]]
    message.ClearField(path[-1])
    if value is None:
        return
    if isinstance(value, dict):
        getattr(message, path[-1]).update({key: text for key, text in value.items()})
    elif field.is_repeated:
        getattr(message, path[-1]).extend(value)
    else:
        setattr(message, path[-1], value)

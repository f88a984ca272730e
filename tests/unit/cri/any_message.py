"""Arbitrary messages of any type, built from its descriptor: what a hostile client may send."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

KINDS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: st.one_of(
        st.sampled_from(["", "a", "/a/b", "a\0b", "localhost/x"]), st.text(max_size=4)
    ),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=4),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_INT32: st.one_of(st.sampled_from([0, 80, -1]), st.integers(-(2**31), 2**31 - 1)),
    FieldDescriptor.TYPE_INT64: st.one_of(
        st.sampled_from([0, 1000, 2**32 - 1]), st.integers(-(2**63), 2**63 - 1)
    ),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_DOUBLE: st.floats(allow_nan=False),
    FieldDescriptor.TYPE_ENUM: st.one_of(st.integers(0, 3), st.integers(-1, 70)),
}


def any_message(descriptor: Any) -> st.SearchStrategy[Message]:
    """Each field present or not, enums with unknown values too."""
    fields = {field.name: _value(field) for field in descriptor.fields}
    kind = GetMessageClass(descriptor)
    return st.fixed_dictionaries({}, optional=fields).map(lambda chosen: kind(**chosen))


def _value(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        return st.dictionaries(KINDS[key.type], KINDS[value.type], max_size=2)
    one = st.deferred(lambda: any_message(field.message_type)) if field.message_type else KINDS[field.type]
    return st.lists(one, max_size=2) if field.is_repeated else one

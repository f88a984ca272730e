"""Records and documents as JSON: the only user of msgspec.

`Record` is the base of our values: frozen, unknown fields refused, defaults omitted in JSON. `Stored` is
the base of those written to disk, where daemons of other releases read and change them.
Imports nothing of ours.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

T = TypeVar("T")
S = TypeVar("S", bound="Stored")

Head = Mapping[str, "Head | None"]
"""Names of fields, each with the names of its own fields, or None for the whole value."""

DecodeError = msgspec.DecodeError
"""What `from_json`, `from_yaml` and `convert` raise; its text names the path, as `$.pools[0].size`."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of our own values, which are decoded strictly."""


_MARK = 0x7F  # DEL: JSON does not escape it, and it is never used; finding one byte costs 50 ns
_UNKNOWN = f"{chr(_MARK)}unknown"


class Stored(Record, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Base of what is written to disk, and of its parts.

    `unknown`: fields added by a later release, as a JSON object. `from_stored` keeps them and `to_json`
    writes them back, in each part where they were found. Those of a replaced part are dropped with it.

    So a field may be added without a new schema if an earlier release can safely ignore it. Any other change
    raises the record's schema: `tag_field="schema", tag=2`; a record without the number has 1. The heads of
    pods and containers (lifecycle/records.py) are the same in every schema.
    """

    unknown: bytes = msgspec.field(default=b"", name=_UNKNOWN)


class NewerSchema(Exception):
    """Written by a later release with a schema unknown here: must be left unchanged."""

    def __init__(self, schema: int, known: int) -> None:
        super().__init__(f"it has schema {schema} of a newer phantom-cri, this one knows {known}")


class Document(msgspec.Struct, frozen=True):
    """Base of foreign JSON (image manifests, profiles): unknown fields are ignored."""


def to_json(value: object) -> bytes:
    text = msgspec.json.encode(value)
    if _MARK in text:  # perhaps in a string
        return msgspec.json.encode(_with_unknown(value, text))
    return text


def from_json(text: bytes | str, kind: type[T]) -> T:
    """Decode strictly into `kind`; raises DecodeError."""
    return msgspec.json.decode(text, type=kind)


def from_stored(text: bytes, kind: type[S]) -> S:
    """Read what `to_json` of any release wrote. Raises DecodeError, NewerSchema."""
    schema, known = _HEAD.decode(text).schema, _schema_of(kind)
    if schema > known:
        raise NewerSchema(schema, known)
    value = from_json(text, kind)
    if to_json(value) == text:  # nearly always: written by this release
        return value
    return cast(S, _keeping_unknown(value, text))


def from_head(text: bytes, kind: type[S], head: Head) -> S:
    """Read only the fields `head` of a newer schema; all others are kept as unknown. Raises DecodeError."""
    value = from_json(msgspec.json.encode(_picked(text, head)), kind)
    return cast(S, _keeping_unknown(value, text, head))


def newer_schema(value: Stored) -> str:
    """Why only the record's head could be read (its newer schema); "" if all of it was."""
    if value.unknown:
        schema, known = _HEAD.decode(value.unknown).schema, _schema_of(type(value))
        if schema > known:
            return str(NewerSchema(schema, known))
    return ""


def _schema_of(kind: type[Stored]) -> int:
    """The newest schema supported here."""
    tag = kind.__struct_config__.tag
    return tag if isinstance(tag, int) else 1


def from_yaml(text: bytes | str, kind: type[T]) -> T:
    return msgspec.yaml.decode(text, type=kind)


def convert(value: Any, kind: type[T]) -> T:
    return msgspec.convert(value, type=kind)


def replace(value: T, **changes: Any) -> T:
    """A copy of a frozen record with some fields changed."""
    return msgspec.structs.replace(value, **changes)  # type: ignore[type-var]


def write_atomically(path: Path | str, content: bytes, *, mode: int = 0o600, durable: bool = False) -> None:
    """Write to a temporary name in the same folder and rename over `path`.

    Readers see the old or the new content, never a part of it, also after a crash at any moment.
    `durable` also syncs file and folder, to survive a power loss.
    Raises OSError; the temporary file is then removed.
    """
    target = os.fspath(path)
    temporary = f"{target}.{os.getpid()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        try:
            write_all(fd, content)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    if durable:
        sync_folder(os.path.dirname(target) or ".")


def write_all(fd: int, content: bytes) -> None:
    """write(2) until all is written: one call may write less when a disk is nearly full. Raises OSError."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def sync_folder(folder: str) -> None:
    """fsync(2) a folder, so that its entries survive a power loss. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _Head(msgspec.Struct):
    schema: int = 1


_HEAD = msgspec.json.Decoder(_Head)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])


def _picked(text: bytes | msgspec.Raw, head: Head) -> dict[str, Any]:
    found = _FIELDS.decode(text)
    parts = ((name, inner, found[name]) for name, inner in head.items() if name in found)
    return {name: part if inner is None else _picked(part, inner) for name, inner, part in parts}


def _keeping_unknown(value: Any, text: bytes | msgspec.Raw, head: Head | None = None) -> Any:
    """`value` as decoded from `text`, with the fields of `text` that its class and its parts' classes lack.

    With a `head`: all fields that the head does not name.
    """
    if isinstance(value, Stored):
        found = _FIELDS.decode(text)
        changes = {}
        for name, field in zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True):
            if name in found and (head is None or name in head):
                before = getattr(value, field)
                after = _keeping_unknown(before, found.pop(name), head and head[name])
                if after is not before:
                    changes[field] = after
        found.pop(_UNKNOWN, None)
        if head is None:
            found.pop(value.__struct_config__.tag_field or "", None)
        unknown = msgspec.json.encode(found) if found else b""
        if unknown != value.unknown:
            changes["unknown"] = unknown
        return replace(value, **changes) if changes else value
    if isinstance(value, tuple) and any(isinstance(part, Stored) for part in value):
        parts = tuple(map(_keeping_unknown, value, _ITEMS.decode(text)))
        return value if all(map(operator.is_, parts, value)) else parts
    return value


def _with_unknown(value: object, text: bytes | msgspec.Raw) -> Any:
    """`value`, whose JSON is `text`, as an encodable object with all unknown fields in their places."""
    if isinstance(value, msgspec.Struct):
        fields = _FIELDS.decode(text)
        for name, field in zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True):
            if name in fields:
                fields[name] = _with_unknown(getattr(value, field), fields[name])
        if isinstance(value, Stored) and value.unknown:
            del fields[_UNKNOWN]
            fields |= _FIELDS.decode(value.unknown)
        return fields
    if isinstance(value, dict):
        return {name: _with_unknown(value.get(name), raw) for name, raw in _FIELDS.decode(text).items()}
    if isinstance(value, list | tuple):
        return [_with_unknown(part, raw) for part, raw in zip(value, _ITEMS.decode(text), strict=True)]
    return text if isinstance(text, msgspec.Raw) else msgspec.Raw(text)

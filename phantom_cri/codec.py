"""Records and documents as JSON: the one home of msgspec.

`Record` is the base of every value that is written to disk or compared: frozen,
unknown fields refused (a `Noun` ignores them), defaults left out of the JSON.
Imports nothing of ours.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

DecodeError = msgspec.DecodeError
"""What `from_json`, `from_yaml` and `convert` raise; its text names the path, as `$.pools[0].size`."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of our own values: what we wrote ourselves is read back strictly."""


class Noun(Record, frozen=True, forbid_unknown_fields=False):
    """Base of values that another version of ours may have written: unknown fields are ignored."""


class Document(msgspec.Struct, frozen=True):
    """Base of foreign JSON (image manifests, profiles): unknown fields are ignored."""


def to_json(value: object) -> bytes:
    return msgspec.json.encode(value)


def from_json(text: bytes | str, kind: type[T]) -> T:
    """Decode strictly into `kind`; raises DecodeError."""
    return msgspec.json.decode(text, type=kind)


def from_yaml(text: bytes | str, kind: type[T]) -> T:
    return msgspec.yaml.decode(text, type=kind)


def convert(value: Any, kind: type[T]) -> T:
    return msgspec.convert(value, type=kind)


def replace(value: T, **changes: Any) -> T:
    """A copy of a frozen record with some fields changed."""
    return msgspec.structs.replace(value, **changes)  # type: ignore[type-var]


def write_atomically(path: Path | str, content: bytes, *, mode: int = 0o600, durable: bool = False) -> None:
    """Write to a temporary name in the same folder and rename over `path`.

    A reader, or a crash at any moment, sees the old or the new content, never half.
    `durable` also syncs file and folder, for what must survive a power loss.
    Raises OSError; the temporary file is removed then.
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
    """write(2) until all is written: one call may take less when a disk is nearly full. Raises OSError."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def sync_folder(folder: str) -> None:
    """Make the names in a folder outlive a power loss. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

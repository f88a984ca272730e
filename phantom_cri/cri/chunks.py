"""Splits a long list into the messages of the Stream… RPCs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from google.protobuf.message import Message

Item = TypeVar("Item", bound=Message)

# Well below the 16 MiB that a kubelet accepts in one message, even with long labels.
CHUNK_BYTES = 1 << 20


def chunks(items: Iterable[Item], limit: int = CHUNK_BYTES) -> Iterator[list[Item]]:
    """Lists of items of about `limit` bytes each, never empty; every item is in one list."""
    run: list[Item] = []
    size = 0
    for item in items:
        run.append(item)
        size += item.ByteSize()
        if size >= limit:
            yield run
            run, size = [], 0
    if run:
        yield run

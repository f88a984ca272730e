"""A long list in the pieces that the Stream… RPCs send."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from google.protobuf.message import Message

Item = TypeVar("Item", bound=Message)

# Well below the 16 MiB that a kubelet takes in one message, however long the labels are.
CHUNK_BYTES = 1 << 20


def chunks(items: Iterable[Item], limit: int = CHUNK_BYTES) -> Iterator[list[Item]]:
    """Runs of items of about `limit` bytes together, never an empty one; an item is in one run."""
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

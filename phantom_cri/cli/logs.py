"""A container's log file, followed as it grows, given back as what the container wrote.

The format is CRI's: `TIME STREAM TAGS TEXT`, a line tagged P goes on in the next one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

CHUNK = 1 << 16


class LogFollower:
    """Reads what was appended since the last call. The file may not be there yet."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._rest = b""

    def read(self) -> Iterator[tuple[str, bytes]]:
        """Yield ("stdout" or "stderr", text) for all complete lines up to the end of the file."""
        if self._fd < 0:
            try:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return
        while chunk := os.read(self._fd, CHUNK):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            yield from map(_parse, lines)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _parse(line: bytes) -> tuple[str, bytes]:
    """Raises ValueError for what is no line of a CRI log."""
    fields = line.split(b" ", 3)
    if len(fields) != 4 or fields[1] not in (b"stdout", b"stderr"):
        raise ValueError(f"not a line of a CRI log: {line[:80]!r}")
    partial = fields[2].split(b":")[0] == b"P"
    return fields[1].decode(), fields[3] if partial else fields[3] + b"\n"

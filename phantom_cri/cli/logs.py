"""Reads and follows a container's log file, and returns the container's output.

The format is CRI's: `TIME STREAM TAGS TEXT`, a line with the tag P continues in the next one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

CHUNK = 1 << 16


class LogLine(NamedTuple):
    """`text`: the container's output, including the newline; `begins`: false for the rest of a line."""

    time: str
    stream: str
    text: bytes
    begins: bool


class LogFollower:
    """Reads what was appended since the last call. The file may not exist yet, or be replaced."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._rest = b""
        self._inside: dict[str, bool] = {}

    def read(self) -> Iterator[LogLine]:
        """All complete lines up to the end of the file. Raises ValueError if it is not a CRI log."""
        if self._fd < 0 and not self._open():
            return
        yield from self._lines()
        if self._replaced():
            yield from self._lines()  # appended between the last read and the file's replacement
            self.close()
            if self._open():
                yield from self._lines()

    def seek_tail(self, count: int) -> None:
        """Start the next read `count` lines before the end."""
        if count >= 0 and (self._fd >= 0 or self._open()):
            os.lseek(self._fd, _tail_offset(self._fd, count), os.SEEK_SET)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._rest = b""

    def _open(self) -> bool:
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        return True

    def _replaced(self) -> bool:
        """Whether the file was rotated: renamed, and a new one created under its name."""
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            return False
        mine = os.fstat(self._fd)
        return (now.st_dev, now.st_ino) != (mine.st_dev, mine.st_ino)

    def _lines(self) -> Iterator[LogLine]:
        while chunk := os.read(self._fd, CHUNK):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            yield from map(self._parsed, lines)

    def _parsed(self, line: bytes) -> LogLine:
        time, stream, partial, text = _fields(line)
        begins = not self._inside.get(stream)
        self._inside[stream] = partial
        return LogLine(time, stream, text if partial else text + b"\n", begins)


def _fields(line: bytes) -> tuple[str, str, bool, bytes]:
    fields = line.split(b" ", 3)
    if len(fields) != 4 or fields[1] not in (b"stdout", b"stderr"):
        raise ValueError(f"not a line of a CRI log: {line[:80]!r}")
    return fields[0].decode(errors="replace"), fields[1].decode(), fields[2].split(b":")[0] == b"P", fields[3]


def _tail_offset(fd: int, count: int) -> int:
    """Offset of the last `count` whole lines of a log. Reads from the end, as much as needed."""
    end = os.fstat(fd).st_size
    size = 0
    while size < end:
        size = min(end, 2 * size or CHUNK)
        offset = _nth_last(os.pread(fd, size, end - size), count, whole=size == end)
        if offset >= 0:
            return end - size + offset
    return 0


def _nth_last(tail: bytes, count: int, *, whole: bool) -> int:
    """Offset in `tail` of its last `count` lines, or -1 if they begin before it."""
    at, seen = len(tail), 0
    while (newline := tail.rfind(b"\n", 0, at)) >= 0:
        start = tail.rfind(b"\n", 0, newline) + 1
        if start == 0 and not whole:
            return -1
        seen += not _fields(tail[start:newline])[2]
        if seen > count:
            return newline + 1
        at = newline
    return -1

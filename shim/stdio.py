"""The ends of a process's streams that containerd names: FIFOs, or a file.

A process gets its end itself. That of stdout and stderr can be read too: so containerd may go and come back,
and the process neither gets SIGPIPE nor sees an end.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from phantom_cri.errors import InvalidArgument, kernel_error

_FILE = "file://"


class Streams(NamedTuple):
    """As containerd names them; "" for none."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False


class Input(NamedTuple):
    """The caller closes both. While `writer` is open, whoever reads `reader` sees no end."""

    reader: int
    writer: int


def check(streams: Streams) -> None:
    """Raises InvalidArgument naming a stream that is of no kind that is known."""
    if _is_file(streams.stdin):
        raise InvalidArgument(f"stdin: {streams.stdin!r}: want a FIFO")
    for name in Streams._fields[:3]:
        path = getattr(streams, name)
        if path and not _is_file(path) and not path.startswith("/"):
            raise InvalidArgument(f"{name}: {path!r}: want the absolute path of a FIFO, or file:///PATH")


def _is_file(path: str) -> bool:
    return path.startswith(_FILE)


def open_output(path: str, name: str) -> int:
    """For a process, or for who writes in its stead. Raises InvalidArgument, Internal naming the path."""
    try:
        if _is_file(path):
            place = path.removeprefix(_FILE).partition("?")[0]
            return os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        _check_fifo(path, name)
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise kernel_error(f"{name}: open {path}", error.errno or 0) from error


def open_input(path: str, name: str = "stdin") -> Input:
    """Raises InvalidArgument, Internal naming the path."""
    try:
        _check_fifo(path, name)
        # Neither waits for the other side: a reader never does so, and then there is one.
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except BaseException:
            os.close(reader)
            raise
    except OSError as error:
        raise kernel_error(f"{name}: open {path}", error.errno or 0) from error
    os.set_blocking(reader, True)
    return Input(reader, writer)


def _check_fifo(path: str, name: str) -> None:
    if not stat.S_ISFIFO(os.stat(path).st_mode):
        raise InvalidArgument(f"{name}: {path!r} is no FIFO")

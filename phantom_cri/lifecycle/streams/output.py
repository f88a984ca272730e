"""Collects the output of a command, up to a limit."""

from __future__ import annotations

import asyncio
import os
from types import TracebackType

CHUNK = 1 << 16  # a pipe's whole capacity, pipe(7)


class Output:
    """A pipe; the command gets the write end. Keeps the first `limit` bytes and drains the rest."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._content = bytearray()
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(self._reader, False)
            self._loop.add_reader(self._reader, self._read)
        except BaseException:
            os.close(self._reader)
            os.close(self._writer)
            raise

    def take_writer(self) -> int:
        """The write end; the caller closes it."""
        writer, self._writer = self._writer, -1
        return writer

    def content(self) -> bytes:
        return bytes(self._content)

    async def closed(self) -> None:
        """Returns when the last writer has closed its end."""
        self._read()
        await asyncio.shield(self._closed)

    def _read(self) -> None:
        if self._closed.done():
            return
        try:
            chunk = os.read(self._reader, CHUNK)
        except BlockingIOError:
            return
        if chunk:
            self._content += chunk[: self._limit - len(self._content)]
        else:
            self._loop.remove_reader(self._reader)
            self._closed.set_result(None)

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
        if self._writer >= 0:
            os.close(self._writer)

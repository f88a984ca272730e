"""Downloads one blob into the content store, from one or more endpoints."""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator, Callable

from phantom_cri.errors import DataLoss, FailedPrecondition
from phantom_cri.images.connection import Connection
from phantom_cri.images.content import ContentStore, Ingest
from phantom_cri.images.threads import Threads
from phantom_cri.images.wire import Failure, Response, content_encoding, gunzipped

_WRITE_SIZE = 1 << 20
_BRISK_S = 30.0  # a cache may have to fetch the blob itself before it can send the first byte
_EARLIER = "an earlier download"
_RANGE = re.compile(r"bytes (\d+)-")


class Download:
    """Each attempt continues the previous one, at any endpoint; `close` keeps the part for a later pull.

    If the complete blob has a wrong digest and came from one endpoint, that endpoint fails. If several sent
    parts (an earlier download counts as one), it is fetched again from one endpoint only. `source`: whose
    earlier parts are continued. `progress` gets the bytes so far, `moved` is called whenever data arrives.
    """

    def __init__(
        self,
        digest: str,
        size: int,
        source: str,
        store: ContentStore,
        threads: Threads,
        progress: Callable[[int], None],
        moved: Callable[[], None],
    ) -> None:
        self._digest, self._size, self._source = digest, size, source
        self._store, self._threads = store, threads
        self._progress, self._moved = progress, moved
        self._ingest: Ingest | None = None
        self._senders: set[str] = set()
        self._alone = False
        self._decode = True
        self._decoded = False
        self._furthest = 0

    def close(self) -> None:
        if self._ingest is not None:
            self._ingest.__exit__()
            self._ingest = None

    async def attempt(self, connection: Connection) -> None:
        """One request for the missing bytes. Raises Failure; its `progress`: more bytes than ever before."""
        ingest = await self._open()
        before, url = self._furthest, connection.endpoint.url
        if self._alone and self._senders - {url}:
            await self._restart(ingest)
        try:
            if ingest.offset < self._size:
                await self._stream(connection, ingest)
            if ingest.offset < self._size:
                short = f"ends after {ingest.offset} of {self._size} bytes"
                raise Failure(DataLoss, short, transient=True)
            await self._threads.run(ingest.commit)
        except DataLoss as error:
            raise self._damaged(str(error)) from None
        except Failure as failure:
            failure.progress = ingest.offset > before
            raise
        finally:
            if self._ingest is not None:
                self._furthest = max(before, ingest.offset)

    async def _open(self) -> Ingest:
        if self._ingest is None:
            self._ingest = self._store.ingest(self._digest, self._size, self._source)
            await self._threads.run(self._ingest.take_up)
            self._senders = {_EARLIER} if self._ingest.offset else set()
        return self._ingest

    async def _restart(self, ingest: Ingest) -> None:
        await self._threads.run(ingest.restart)
        self._senders = set()

    def _damaged(self, reason: str) -> Failure:
        """The failure for a part that the store has deleted, since its digest is wrong."""
        self.close()
        self._furthest = 0
        reason = reason.removeprefix(f"blob {self._digest}: ")
        if self._decoded:
            self._decode = False  # some servers send a Content-Encoding that was not applied
            return Failure(DataLoss, reason, transient=True)
        if len(self._senders) > 1 or _EARLIER in self._senders:
            self._alone = True
            return Failure(DataLoss, f"{reason}, in parts of {len(self._senders)} senders", transient=True)
        return Failure(DataLoss, reason)

    async def _stream(self, connection: Connection, ingest: Ingest) -> None:
        offset = ingest.offset
        headers = [("Range", f"bytes={offset}-")] if offset else []
        try:
            async with connection.request("GET", f"blobs/{self._digest}", headers, _BRISK_S) as response:
                body = await self._body(response, ingest)
                self._senders.add(connection.endpoint.url)
                await self._write(body, ingest)
        except zlib.error as error:
            self._decode = False
            await self._restart(ingest)
            raise Failure(DataLoss, f"Content-Encoding gzip: {error}", transient=True) from None
        except Failure as failure:
            if failure.status != 416 or not offset:
                raise
            await self._restart(ingest)  # a server without usable ranges (RFC 9110 §15.5.17)
            raise Failure(FailedPrecondition, failure.reason, transient=True) from None

    async def _body(self, response: Response, ingest: Ingest) -> AsyncIterator[bytes]:
        """The blob's bytes after those in `ingest`, which is restarted if the answer starts at 0.

        A Content-Encoding that was not requested is decoded, unless the length shows that these are the
        blob's bytes. A range of encoded content has other offsets, so it cannot be used.
        """
        length = response.headers.get("Content-Length", "")
        begins = _begins(response, ingest.offset, length == str(self._size - ingest.offset))
        encoding = content_encoding(response)
        self._decoded = bool(encoding) and self._decode and length != str(self._size - begins)
        if self._decoded and encoding != "gzip":
            raise Failure(FailedPrecondition, f"Content-Encoding {encoding[:50]!r}, which was not requested")
        if begins != ingest.offset or (self._decoded and begins):
            await self._restart(ingest)
            if begins:
                raise Failure(FailedPrecondition, "answers with another range than requested", transient=True)
        chunks = response.aiter_raw()
        return gunzipped(chunks) if self._decoded else chunks

    async def _write(self, body: AsyncIterator[bytes], ingest: Ingest) -> None:
        pending = bytearray()
        try:
            async for chunk in body:
                pending += chunk
                self._moved()
                if len(pending) >= _WRITE_SIZE:
                    await self._threads.run(ingest.write, bytes(pending))
                    pending.clear()
                    self._progress(ingest.offset)
        finally:
            if pending:  # keep what was received before the connection broke
                await self._threads.run(ingest.write, bytes(pending))
                self._progress(ingest.offset)


def _begins(response: Response, asked: int, fits: bool) -> int:
    """The answer's offset in the blob; -1 if a partial one has none (RFC 9110 §14.4, §15.3.7)."""
    if response.status_code != 206:
        return 0
    found = _RANGE.match(response.headers.get("Content-Range", ""))
    return int(found[1]) if found else asked if fits else -1

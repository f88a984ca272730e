"""Pulling one repository by the OCI distribution protocol, over whatever endpoints it is configured to have.

Endpoints are tried in order; within one, transient failures are tried again with growing
pauses, and a broken blob download goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

from phantom_cri.errors import DataLoss, FailedPrecondition, NotFound, PhantomError, RegistryUnavailable
from phantom_cri.images.auth import Credentials
from phantom_cri.images.connection import Connection, Response, Retry, read_body
from phantom_cri.images.content import ContentStore, Ingest, digest_of
from phantom_cri.images.hosts import Endpoint
from phantom_cri.images.limits import Limits
from phantom_cri.images.manifest import ACCEPT
from phantom_cri.images.reference import Reference, is_digest
from phantom_cri.images.threads import Threads

_ATTEMPTS = 5
_FIRST_PAUSE_S = 0.05
_LAST_PAUSE_S = 5.0
_WRITE_SIZE = 1 << 20

T = TypeVar("T")


class Fetched(NamedTuple):
    digest: str
    media_type: str
    content: bytes


class _Flow(NamedTuple):
    """Whom a download tells of itself: `progress` of what is written, `moved` of all that comes."""

    threads: Threads
    progress: Callable[[int], None]
    moved: Callable[[], None]


class Registry:
    """Use as an async context manager. `credentials`: by endpoint URL, presented only when asked for."""

    def __init__(
        self,
        name: Reference,
        endpoints: tuple[Endpoint, ...],
        credentials: Mapping[str, Credentials | None],
        limits: Limits,
    ) -> None:
        self._name = name
        self._connections = [Connection(each, name, credentials.get(each.url)) for each in endpoints]
        self._limits = limits

    async def __aenter__(self) -> Registry:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._connections:
            await connection.close()

    async def digest(self, reference: str) -> str | None:
        """What a tag points to, by HEAD; None when the registry does not say."""

        async def ask(connection: Connection) -> str | None:
            async with connection.request("HEAD", f"manifests/{reference}", {"Accept": ACCEPT}) as response:
                found = response.headers.get("Docker-Content-Digest", "")
                return found if is_digest(found) else None

        try:
            async with self._patience("resolving it"):
                return await self._first("resolve", ask)
        except (FailedPrecondition, NotFound):
            return None  # 405: this registry only knows GET; 404: only GET says why in words

    async def manifest(self, reference: str) -> Fetched:
        """The manifest or index behind a tag or digest; its bytes are hashed, whatever the headers say."""

        async def fetch(connection: Connection) -> Fetched:
            async with connection.request("GET", f"manifests/{reference}", {"Accept": ACCEPT}) as response:
                content = await read_body(response, self._limits.manifest_bytes)
                kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
            digest = digest_of(content)
            if is_digest(reference) and reference.startswith("sha256:") and digest != reference:
                raise DataLoss(f"manifest {reference}: {connection.endpoint.host} sent digest {digest}")
            return Fetched(reference if reference.startswith("sha512:") else digest, kind, content)

        async with self._patience(f"manifest {reference}"):
            return await self._first("pull" if is_digest(reference) else "resolve", fetch)

    async def blob(
        self, digest: str, size: int, store: ContentStore, threads: Threads, progress: Callable[[int], None]
    ) -> None:
        """Download into `store`, from where an earlier attempt stopped; `progress` gets the bytes so far."""

        async def fetch(connection: Connection) -> None:
            with store.ingest(digest, size, self._name.repository) as ingest:
                await threads.run(ingest.take_up)
                resumed = ingest.offset > 0
                try:
                    async with self._patience(f"blob {digest}") as moved:
                        await self._fill(connection, ingest, size, _Flow(threads, progress, moved))
                    await threads.run(ingest.commit)
                except DataLoss:
                    if not resumed:
                        raise
                    raise Retry(
                        DataLoss(f"blob {digest}: the part of an earlier download is damaged"), 0
                    ) from None

        await self._first("pull", fetch)

    async def _fill(self, connection: Connection, ingest: Ingest, size: int, flow: _Flow) -> None:
        """Read until the blob is whole; only attempts that brought nothing count against the limit."""
        failures = 0
        while ingest.offset < size:
            before = ingest.offset
            try:
                await self._stream(connection, ingest, flow)
                if ingest.offset < size:
                    raise Retry(DataLoss(f"blob {ingest.digest}: ends after {ingest.offset} of {size} bytes"))
            except Retry as retry:
                failures = 0 if ingest.offset > before else failures + 1
                if failures >= _ATTEMPTS or connection.unreachable:
                    raise retry.error from None
                await _pause(failures, retry.delay_s)

    async def _stream(self, connection: Connection, ingest: Ingest, flow: _Flow) -> None:
        headers = {"Range": f"bytes={ingest.offset}-"} if ingest.offset else {}
        async with connection.request("GET", f"blobs/{ingest.digest}", headers) as response:
            if ingest.offset and not _continues(response, ingest.offset):
                await flow.threads.run(ingest.restart)
            pending = bytearray()
            try:
                async for chunk in response.aiter_raw():
                    pending += chunk
                    flow.moved()
                    if len(pending) >= _WRITE_SIZE:
                        await flow.threads.run(ingest.write, bytes(pending))
                        pending.clear()
                        flow.progress(ingest.offset)
            finally:
                if pending:  # what came before a broken connection need not come again
                    await flow.threads.run(ingest.write, bytes(pending))
                    flow.progress(ingest.offset)

    @asynccontextmanager
    async def _patience(self, what: str) -> AsyncIterator[Callable[[], None]]:
        """Gives what to call whenever something came. Raises RegistryUnavailable when nothing does."""
        seconds = self._limits.progress_timeout_s or None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds) as timer:
                yield lambda: timer.reschedule(loop.time() + seconds) if seconds else None
        except TimeoutError:
            raise RegistryUnavailable(
                f'failed to pull "{self._name.canonical}": {what}: nothing came for {seconds:g} s'
                " (images.pull_progress_timeout)"
            ) from None

    async def _first(self, need: str, work: Callable[[Connection], Awaitable[T]]) -> T:
        """What the first endpoint that can gives; else the error of the last one tried."""
        error: PhantomError = NotFound(f"{self._name.canonical}: no endpoint is configured that may {need}")
        for connection in self._connections:
            if need not in connection.endpoint.capabilities or connection.unreachable:
                continue
            try:
                return await self._attempts(connection, work)
            except PhantomError as failure:
                error = failure
        raise error

    async def _attempts(self, connection: Connection, work: Callable[[Connection], Awaitable[T]]) -> T:
        failures = 0
        while True:
            try:
                return await work(connection)
            except Retry as retry:
                failures += 1
                if failures >= _ATTEMPTS or connection.unreachable:
                    raise retry.error from None
                await _pause(failures, retry.delay_s)


def _continues(response: Response, offset: int) -> bool:
    """Whether a partial answer begins where we stopped (RFC 9110 §14.4)."""
    begins = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return response.status_code == 206 and begins == str(offset)


async def _pause(failures: int, delay_s: float | None) -> None:
    growing = min(_FIRST_PAUSE_S * 2**failures, _LAST_PAUSE_S)
    await asyncio.sleep(growing * random.uniform(0.5, 1.0) if delay_s is None else delay_s)  # noqa: S311

"""Pulls from one repository by the OCI distribution protocol, from its configured endpoints.

Each step of a pull tries the endpoints in order until one succeeds. No endpoint is retried while another has
not been tried; then those with transient failures are retried, with growing pauses. Endpoints that failed
recently are tried last (`Outages`).
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from phantom_cri.errors import (
    DataLoss,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    PhantomError,
    RegistryUnavailable,
    ResourceExhausted,
    Unauthenticated,
)
from phantom_cri.images.auth import Credentials
from phantom_cri.images.connection import Connection
from phantom_cri.images.content import ContentStore
from phantom_cri.images.download import Download
from phantom_cri.images.hosts import Endpoint
from phantom_cri.images.limits import Limits
from phantom_cri.images.manifest import ACCEPT
from phantom_cri.images.outages import LONGEST_WAIT_S, Outages
from phantom_cri.images.reference import Reference, is_digest
from phantom_cri.images.threads import Threads
from phantom_cri.images.wire import Failure, read_body

_ATTEMPTS = 5
_LAST_PAUSE_S = 5.0
_WAITING_S = 120.0  # total wait for Retry-After, for one step at one endpoint
_BRISK_S = 10.0
_SHOWN = 8  # endpoints in one error

_TELLING: tuple[type[PhantomError], ...] = (
    Unauthenticated,
    PermissionDenied,
    DataLoss,
    ResourceExhausted,
    FailedPrecondition,
    RegistryUnavailable,
    NotFound,
)

T = TypeVar("T")


class Fetched(NamedTuple):
    digest: str
    media_type: str
    content: bytes


@dataclass(eq=False, slots=True)
class _Candidate:
    """An endpoint in one step of a pull; times in seconds of the event loop."""

    connection: Connection
    failures: int = 0
    waited: float = 0.0
    ready_at: float = 0.0


class Registry:
    """Use as an async context manager. `credentials`: by endpoint URL, only sent when requested."""

    def __init__(
        self,
        name: Reference,
        endpoints: tuple[Endpoint, ...],
        credentials: Mapping[str, Credentials | None],
        limits: Limits,
        outages: Outages,
    ) -> None:
        self._name = name
        last = len(endpoints) - 1
        self._connections = [
            Connection(each, name, credentials.get(each.url), brisk=number < last)
            for number, each in enumerate(endpoints)
        ]
        self._limits = limits
        self._outages = outages
        self._unreachable: dict[Connection, Failure] = {}

    async def __aenter__(self) -> Registry:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._connections:
            await connection.close()

    async def resolve(self, reference: str) -> str | Fetched:
        """The digest of a tag or digest; the manifest itself if HEAD does not return a digest.

        Some registries do not support HEAD, and some answer it without a digest: then GET is used. It is also
        used after a 404, for the error's message.
        """

        async def ask(connection: Connection) -> str | Fetched:
            try:
                found = await self._head(connection, reference)
            except Failure as failure:
                if failure.kind is not FailedPrecondition:
                    raise
                found = ""
            return found or await self._get(connection, reference)

        try:
            async with self._patience(f"resolve {reference}"):
                return await self._first("resolve", f"resolve {reference}", ask)
        except NotFound:
            return await self.manifest(reference)

    async def manifest(self, reference: str) -> Fetched:
        """The manifest or index of a tag or digest; its bytes are hashed, headers are not trusted."""
        need, step = "pull" if is_digest(reference) else "resolve", f"manifest {reference}"
        async with self._patience(step):
            return await self._first(need, step, lambda each: self._get(each, reference))

    async def blob(
        self,
        what: str,
        digest: str,
        size: int,
        store: ContentStore,
        threads: Threads,
        progress: Callable[[int], None],
    ) -> None:
        """Download into `store`, continuing an earlier attempt; `progress` gets the bytes so far.

        `what`: config, layer or blob, for errors.
        """
        step = f"{what} {digest}"
        async with self._patience(step) as moved:
            download = Download(digest, size, self._name.repository, store, threads, progress, moved)
            try:
                await self._first("pull", step, download.attempt)
            finally:
                download.close()

    async def _head(self, connection: Connection, reference: str) -> str:
        accept = [("Accept", ACCEPT)]
        async with connection.request("HEAD", f"manifests/{reference}", accept, _BRISK_S) as response:
            found = response.headers.get("Docker-Content-Digest", "")
        if not is_digest(found) or not is_digest(reference):
            return found if is_digest(found) else ""
        if found != reference and found.partition(":")[0] == reference.partition(":")[0]:
            raise Failure(DataLoss, f"answers with digest {found}")
        return reference

    async def _get(self, connection: Connection, reference: str) -> Fetched:
        accept = [("Accept", ACCEPT)]
        async with connection.request("GET", f"manifests/{reference}", accept, _BRISK_S) as response:
            content = await read_body(response, self._limits.manifest_bytes)
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        algorithm = reference.partition(":")[0] if is_digest(reference) else "sha256"
        digest = f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
        if is_digest(reference) and digest != reference:
            raise Failure(DataLoss, f"sent content with digest {digest}")
        return Fetched(digest, kind, content)

    @asynccontextmanager
    async def _patience(self, step: str) -> AsyncIterator[Callable[[], None]]:
        """Yields a function to call when data arrives. Raises RegistryUnavailable if none does in time."""
        seconds = self._limits.progress_timeout_s or None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds) as timer:
                yield lambda: timer.reschedule(loop.time() + seconds) if seconds else None
        except TimeoutError:
            raise RegistryUnavailable(
                f"{self._what()}: {step}: nothing came for {seconds:g} s (images.pull_progress_timeout)"
            ) from None

    async def _first(self, need: str, step: str, work: Callable[[Connection], Awaitable[T]]) -> T:
        """The result of the first endpoint that succeeds. Raises `_error` of all failures."""
        able = [each for each in self._connections if need in each.endpoint.capabilities]
        failed = {each: why for each, why in self._unreachable.items() if each in able}
        candidates = self._in_order([each for each in able if each not in failed] or able)
        while candidates:
            candidate = await self._next(candidates)
            connection = candidate.connection
            try:
                result = await work(connection)
            except Failure as failure:
                failed[connection] = failure
                self._note(connection, failure)
                candidates.remove(candidate)
                if self._may_try_again(candidate, failure, failed):
                    candidates.append(candidate)
            else:
                self._outages.worked(connection.endpoint.url)
                return result
        raise self._error(need, step, failed)

    def _in_order(self, connections: list[Connection]) -> list[_Candidate]:
        connections.sort(key=lambda each: self._outages.is_bad(each.endpoint.url))
        return [_Candidate(each) for each in connections]

    async def _next(self, candidates: list[_Candidate]) -> _Candidate:
        """The first candidate that can be tried now, else waits for the first that can be retried."""
        now = asyncio.get_running_loop().time()

        def ready_in(candidate: _Candidate) -> float:
            wait_s = self._outages.wait_s(candidate.connection.endpoint.url)
            return max(0.0, candidate.ready_at - now, wait_s)

        chosen = min(candidates, key=ready_in)
        await asyncio.sleep(ready_in(chosen))
        return chosen

    def _note(self, connection: Connection, failure: Failure) -> None:
        """Remember an endpoint that is down or sends wrong content; not one that refuses or lacks it."""
        if connection.unreachable:
            self._unreachable[connection] = failure
        if failure.kind is DataLoss or (failure.transient and not failure.progress):
            self._outages.failed(connection.endpoint.url, failure.delay_s or 0.0)

    def _may_try_again(
        self, candidate: _Candidate, failure: Failure, failed: Mapping[Connection, Failure]
    ) -> bool:
        """Whether `candidate` gets another attempt, and when.

        None after a permanent failure of the last configured endpoint, usually the registry itself. A wait
        requested by the server does not count as a failure, but has its own limit.
        """
        final = any(not each.transient for one, each in failed.items() if not one.brisk)
        if not failure.transient or candidate.connection.unreachable or (final and not failure.progress):
            return False
        now = asyncio.get_running_loop().time()
        if failure.delay_s:
            candidate.waited += failure.delay_s
            candidate.ready_at = now + failure.delay_s
            return failure.delay_s <= LONGEST_WAIT_S and candidate.waited <= _WAITING_S
        candidate.failures = 0 if failure.progress else candidate.failures + 1
        pause = min(failure.pace_s * 2**candidate.failures, _LAST_PAUSE_S) * random.uniform(0.5, 1.0)  # noqa: S311
        candidate.ready_at = now + (0.0 if failure.delay_s == 0 else pause)
        return candidate.failures < _ATTEMPTS

    def _error(self, need: str, step: str, failed: Mapping[Connection, Failure]) -> PhantomError:
        """One error for all endpoints, each with its own reason.

        Its kind is that of the last configured endpoint, by default the registry itself. If that one did not
        answer, it is the most useful kind of all: the first in `_TELLING`.
        """
        if not failed:
            return NotFound(f"{self._what()}: {step}: no endpoint is configured that may {need}")
        kinds = [each.kind for one, each in failed.items() if not (one.brisk or each.transient)]
        kinds = kinds or sorted((each.kind for each in failed.values()), key=_TELLING.index)
        if len(failed) == 1:
            return kinds[0](f"{self._what()}: {step}: {next(iter(failed.values())).reason}")
        reasons = [f"{each.url}: {failed[each].reason}" for each in self._connections if each in failed]
        if len(reasons) > _SHOWN:
            reasons[_SHOWN - 1 : -1] = [f"{len(reasons) - _SHOWN} more"]
        return kinds[0](f"{self._what()}: {step}: all {len(failed)} endpoints failed: {'; '.join(reasons)}")

    def _what(self) -> str:
        return f'failed to pull "{self._name.canonical}"'

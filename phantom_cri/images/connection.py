"""Requests for one repository at one endpoint, with redirects and authentication.

Redirects are followed here, so that Authorization, configured headers and the client certificate are only
sent to the host they are meant for. Requests to any other host are anonymous: if it requires a token, one is
fetched without credentials.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

from phantom_cri.errors import FailedPrecondition
from phantom_cri.images.auth import Credentials
from phantom_cri.images.hosts import Endpoint
from phantom_cri.images.reference import Reference
from phantom_cri.images.tokens import Access
from phantom_cri.images.wire import (
    BROKEN,
    Failure,
    Headers,
    Response,
    SpeaksPlain,
    Wire,
    broken,
    redirected_to,
    refused,
    shown,
)

_REDIRECT_LIMIT = 10


class Connection:
    """One endpoint during one pull. `brisk`: see `Wire`."""

    def __init__(
        self, endpoint: Endpoint, name: Reference, credentials: Credentials | None, *, brisk: bool = False
    ) -> None:
        self.endpoint = endpoint
        self.brisk = brisk
        self._name = name
        self._wire = Wire(endpoint, brisk=brisk)
        self._own = Access(self._wire, name.path, credentials, own=True)
        self._strangers: dict[str, Access] = {}

    @property
    def unreachable(self) -> bool:
        return self._wire.unreachable

    @property
    def url(self) -> str:
        """For errors: the URL of requests, which is plain HTTP after a fallback from TLS."""
        return self._wire.base

    async def close(self) -> None:
        await self._wire.close()

    @asynccontextmanager
    async def request(
        self, method: str, path: str, headers: Headers, brisk_s: float
    ) -> AsyncIterator[Response]:
        """The response to `path` below the repository, with status 200 or 206; body not yet read.

        `brisk_s`: seconds for an answer if other endpoints can be tried. Raises Failure.
        """
        async with AsyncExitStack() as stack:
            try:
                response = await self._follow(stack, method, path, headers, brisk_s)
            except SpeaksPlain:
                response = await self._follow(stack, method, path, headers, brisk_s)
            try:
                yield response
            except BROKEN as error:
                raise broken(str(response.url), error) from None

    async def _follow(
        self, stack: AsyncExitStack, method: str, path: str, headers: Headers, brisk_s: float
    ) -> Response:
        target = url = self._url(path)
        for _ in range(_REDIRECT_LIMIT + 1):
            try:
                response = await self._ask(stack, method, target, headers, brisk_s)
                following = redirected_to(response)
            except Failure as failure:
                failure.reason += f", redirected from {shown(url)}" if target != url else ""
                raise
            if not following:
                return response
            target = following
        raise Failure(FailedPrecondition, f"more than {_REDIRECT_LIMIT} redirects from {shown(url)}")

    async def _ask(
        self, stack: AsyncExitStack, method: str, url: str, headers: Headers, brisk_s: float
    ) -> Response:
        """One hop, repeated after the host's challenge was answered: a success or a redirect."""
        own = self._wire.is_own(url)
        access = self._own if own else self._stranger(url)
        for may_ask_again in (True, False):
            sent = access.authorization
            with_own = [*headers, *self._own_headers(sent)] if own else [*headers, *_authorization(sent)]
            response = await self._wire.send(method, url, with_own, own=own, brisk_s=brisk_s)
            stack.push_async_callback(response.aclose)
            if response.status_code != 401 or not may_ask_again:
                break
            await access.answer(response, sent)
        if response.status_code in (200, 206) or redirected_to(response):
            return response
        raise await refused(response, "", self._own.redact)

    def _own_headers(self, authorization: str) -> Headers:
        """The configured headers; the answer to a challenge replaces a configured Authorization."""
        configured = self.endpoint.headers
        if authorization:
            configured = tuple(each for each in configured if each[0].lower() != "authorization")
        return [*configured, *_authorization(authorization)]

    def _stranger(self, url: str) -> Access:
        host = urlsplit(url)._replace(path="", query="", fragment="").geturl()
        if host not in self._strangers:
            self._strangers[host] = Access(self._wire, self._name.path, None, own=False)
        return self._strangers[host]

    def _url(self, path: str) -> str:
        namespace = "" if self.endpoint.origin else f"?ns={self._name.domain}"
        return f"{self._wire.base}/{self._name.path}/{path}{namespace}"


def _authorization(value: str) -> Headers:
    return [("Authorization", value)] if value else []

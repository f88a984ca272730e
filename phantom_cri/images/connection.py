"""HTTP to one endpoint of a registry: authorisation, redirects, failures by name. The one home of httpx.

Redirects are followed by hand, so that Authorization, configured headers and client
certificates stay with the host they are meant for.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from phantom_cri.codec import Document, from_json, replace
from phantom_cri.errors import (
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    PhantomError,
    RegistryUnavailable,
    Unauthenticated,
    Unavailable,
)
from phantom_cri.images.auth import Challenge, Credentials, choose, parse_challenges
from phantom_cri.images.hosts import Endpoint, is_loopback
from phantom_cri.images.manifest import DECODE_ERRORS
from phantom_cri.images.reference import Reference

for _name in ("httpx", "httpcore"):  # they log URLs (signed ones too) at INFO and headers at DEBUG
    logging.getLogger(_name).setLevel(logging.WARNING)

Response = httpx.Response

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECT_LIMIT = 10
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_STALL_S = 60.0  # no byte for so long: the connection is given up and resumed
_RETRY_AFTER_LIMIT_S = 30.0
_REPLY_LIMIT = 256 << 10


class Retry(Exception):
    """Worth another attempt on the same endpoint; `error` is what to raise when none is left."""

    def __init__(self, error: PhantomError, delay_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.delay_s = delay_s


class _ServerError(Document, frozen=True):
    code: str | None = None
    message: str | None = None


class _ServerErrors(Document, frozen=True):
    errors: tuple[_ServerError, ...] | None = None


class _TokenReply(Document, frozen=True):
    token: str | None = None
    access_token: str | None = None


class _Handshake:
    """Closes a connection whose TLS handshake is cancelled: httpcore 1.0.9 does so only for errors
    (`start_tls` of _backends/anyio.py). Called with what httpcore tells by its `trace` extension.
    """

    def __init__(self) -> None:
        self._connected: Any = None

    async def __call__(self, event: str, details: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            self._connected = details["return_value"]
        elif event == "connection.start_tls.failed":
            await self._connected.aclose()


class Connection:
    """One endpoint, for the time of one pull. `unreachable`: could not be connected to and never answered."""

    def __init__(self, endpoint: Endpoint, name: Reference, credentials: Credentials | None) -> None:
        self.endpoint = endpoint
        self.unreachable = False
        self._answered = False
        self._name = name
        self._credentials = credentials
        self._clients: dict[bool, httpx.AsyncClient] = {}
        self._authorization = ""
        self._authorizing = asyncio.Lock()

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    @asynccontextmanager
    async def request(self, method: str, path: str, headers: dict[str, str]) -> AsyncIterator[Response]:
        """The response to `path` below the repository, when its status is 200 or 206; body not yet read.

        Raises Retry for what may pass, else the error a client of the CRI should see.
        """
        url = f"{self.endpoint.url}/{self._name.path}/{path}"
        if not self.endpoint.origin:
            url += f"?ns={self._name.domain}"
        async with AsyncExitStack() as stack:
            sent = self._authorization
            response = await self._follow(stack, method, url, headers, sent)
            if response.status_code == 401 and _same_host(str(response.url), url):
                await self._authorize(response, sent)
                response = await self._follow(stack, method, url, headers, self._authorization)
            if response.status_code not in (200, 206):
                await self._refuse(response)
            try:
                yield response
            except httpx.TransportError as error:
                raise Retry(self._unavailable(url, error)) from None

    async def _follow(
        self, stack: AsyncExitStack, method: str, url: str, headers: dict[str, str], authorization: str
    ) -> Response:
        target = url
        for _ in range(_REDIRECT_LIMIT + 1):
            foreign = not _same_host(target, url)
            own = {} if foreign else dict(self.endpoint.headers)
            if authorization and not foreign:
                own["Authorization"] = authorization
            response = await self._send(method, target, {**headers, **own}, foreign=foreign)
            stack.push_async_callback(response.aclose)
            location = response.headers.get("Location", "")
            if response.status_code not in _REDIRECTS or not location:
                return response
            target = urljoin(target, location)
            if urlsplit(target).scheme not in ("http", "https"):
                raise FailedPrecondition(f"{self._what()}: redirected to {_shown(target)!r}")
        raise FailedPrecondition(f"{self._what()}: more than {_REDIRECT_LIMIT} redirects from {_shown(url)}")

    async def _send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        *,
        foreign: bool,
        form: dict[str, str] | None = None,
    ) -> Response:
        client = await self._client(foreign)
        try:
            request = client.build_request(
                method,
                url,
                headers={"Accept-Encoding": "identity", **headers},
                data=form,
                extensions={"trace": _Handshake()},
            )
            response = await client.send(request, stream=True, auth=None, follow_redirects=False)
            self._answered = self._answered or not foreign
            return response
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            self.unreachable = self.unreachable or not (foreign or self._answered)
            raise Retry(self._unavailable(url, error)) from None
        except httpx.TransportError as error:
            raise Retry(self._unavailable(url, error)) from None
        except (httpx.InvalidURL, UnicodeError, ValueError):
            raise FailedPrecondition(f"{self._what()}: cannot use the URL {_shown(url)!r}") from None

    async def _client(self, foreign: bool) -> httpx.AsyncClient:
        """Our client for the endpoint itself, or one without its client certificate for other hosts."""
        if foreign not in self._clients:
            endpoint = replace(self.endpoint, client=()) if foreign else self.endpoint
            plain = not foreign and endpoint.url.startswith("http:")
            try:
                verify = False if plain else await asyncio.to_thread(_tls, endpoint)
            except (OSError, ssl.SSLError) as error:
                raise FailedPrecondition(f"TLS files of registry {endpoint.host}: {error}") from None
            timeout = httpx.Timeout(_STALL_S, connect=endpoint.dial_timeout, pool=None)
            self._clients.setdefault(foreign, httpx.AsyncClient(verify=verify, timeout=timeout))
        return self._clients[foreign]

    # Authorisation

    async def _authorize(self, response: Response, sent: str) -> None:
        """Answer the challenge of a 401. Raises Unauthenticated when there is nothing (more) to say."""
        async with self._authorizing:
            if self._authorization != sent:
                return  # a request beside us did it meanwhile
            challenge = choose(parse_challenges(response.headers.get_list("WWW-Authenticate")))
            credentials = self._credentials
            if challenge is None or (sent and challenge.scheme == "basic"):
                await self._refuse(response)
            elif challenge.scheme == "basic":
                if credentials is None or not (credentials.username and credentials.password):
                    await self._refuse(response)
                    return
                self._authorization = credentials.basic()
            elif challenge.parameters.get("error") == "insufficient_scope":
                await self._refuse(response)
            elif credentials is not None and credentials.bearer:
                if sent:
                    await self._refuse(response)
                self._authorization = f"Bearer {credentials.bearer}"
            else:
                self._authorization = f"Bearer {await self._token(challenge)}"

    async def _token(self, challenge: Challenge) -> str:
        realm = challenge.parameters.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise Unauthenticated(f"{self._what()}: token realm {realm[:200]!r} is not an absolute URL")
        credentials = self._credentials
        secure = parts.scheme == "https" or is_loopback(parts.netloc) or self.endpoint.url.startswith("http:")
        if credentials is not None and not secure:
            raise Unauthenticated(f"{self._what()}: credentials are not sent in the clear to {_shown(realm)}")
        scopes = challenge.parameters.get("scope", "").split() or [f"repository:{self._name.path}:pull"]
        query = [("service", challenge.parameters["service"])] if "service" in challenge.parameters else []
        foreign = not _same_host(realm, self.endpoint.url)
        if credentials is not None and credentials.is_identity:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": credentials.password,
                "client_id": "phantom-cri",
                "scope": " ".join(scopes),
                **dict(query),
            }
            response = await self._send("POST", realm, {}, foreign=foreign, form=form)
        else:
            url = str(httpx.URL(realm).copy_merge_params([*query, *(("scope", scope) for scope in scopes)]))
            headers = {"Authorization": credentials.basic()} if credentials else {}
            response = await self._send("GET", url, headers, foreign=foreign)
        try:
            return await self._token_from(response, realm)
        finally:
            await response.aclose()

    async def _token_from(self, response: Response, realm: str) -> str:
        if response.status_code != 200:
            await self._refuse(response, "failed to fetch a token: ")
        try:
            reply = from_json(await read_body(response, _REPLY_LIMIT), _TokenReply)
        except DECODE_ERRORS:
            reply = _TokenReply()
        token = reply.token or reply.access_token or ""
        if not re.fullmatch(r"[!-~]+", token):
            raise Unauthenticated(f"{self._what()}: {_shown(realm)} answered without a token")
        return token

    # Failures

    async def _refuse(self, response: Response, doing: str = "") -> None:
        """Raise what a status other than success means."""
        status, said = response.status_code, await self._server_says(response)
        where = (
            f"{response.request.method} {_shown(str(response.url))}: {status} {response.reason_phrase}{said}"
        )
        if status == 404:
            raise NotFound(f"{self._what()}: {self._name.canonical}: not found ({doing}{where})")
        if status == 401:
            raise Unauthenticated(
                f"{self._what()}: pull access denied, repository does not exist or may require authorization"
                f" ({doing}{where})"
            )
        if status == 403:
            raise PermissionDenied(f"{self._what()}: pull access denied ({doing}{where})")
        if status in _TRANSIENT:
            error = RegistryUnavailable(f"{self._what()}: {doing}{where}")
            raise Retry(error, _retry_after(response.headers.get("Retry-After", "")))
        raise FailedPrecondition(f"{self._what()}: unexpected status ({doing}{where})")

    async def _server_says(self, response: Response) -> str:
        """The registry's own words, in one short line and without our secrets."""
        try:
            body = await read_body(response, _REPLY_LIMIT)
            found = from_json(body, _ServerErrors).errors or ()
        except DECODE_ERRORS:
            return ""
        except (httpx.HTTPError, FailedPrecondition):
            return ""
        text = "; ".join(f"{each.code}: {each.message}" for each in found)
        text = self._credentials.redact(text) if self._credentials else text
        token = self._authorization.partition(" ")[2]
        text = text.replace(token, "[redacted]") if token else text
        text = "".join(letter if letter.isprintable() else " " for letter in text[:300])
        return f": server says {text}" if text else ""

    def _unavailable(self, url: str, error: Exception) -> Unavailable:
        why = str(error) or type(error).__name__
        return RegistryUnavailable(f"{self._what()}: {_shown(url)}: {why}")

    def _what(self) -> str:
        return f'failed to pull "{self._name.canonical}"'


async def read_body(response: Response, limit: int) -> bytes:
    """The whole body, or FailedPrecondition when it is longer than `limit` bytes."""
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > limit:
            raise FailedPrecondition(f"{_shown(str(response.url))}: answer longer than {limit} bytes")
    return bytes(content)


def _tls(endpoint: Endpoint) -> ssl.SSLContext:
    if endpoint.skip_verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the time it takes to load authorities
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = ssl.create_default_context()
    for file in endpoint.ca:
        context.load_verify_locations(cafile=file)
    for certificate, key in endpoint.client:
        context.load_cert_chain(certificate, key or None)
    return context


def _same_host(one: str, other: str) -> bool:
    """Whether secrets for `other` may go to `one`: the same host and port, and not from https to http."""
    a, b = urlsplit(one), urlsplit(other)
    downgraded = b.scheme == "https" and a.scheme != "https"
    return (a.hostname, a.port) == (b.hostname, b.port) and not downgraded


def _shown(url: str) -> str:
    """A URL without user, query and fragment, which can be secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:400]


def _retry_after(value: str) -> float | None:
    return min(float(value), _RETRY_AFTER_LIMIT_S) if value.isdecimal() else None

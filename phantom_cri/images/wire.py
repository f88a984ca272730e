"""Single HTTP requests to one endpoint of a registry, and classification of failures. Only user of httpx.

Redirects and challenges are handled by `connection`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
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
)
from phantom_cri.images.hosts import Endpoint, is_loopback
from phantom_cri.images.manifest import DECODE_ERRORS

for _name in ("httpx", "httpcore"):  # they log URLs (signed ones too) at INFO and headers at DEBUG
    logging.getLogger(_name).setLevel(logging.WARNING)

Response = httpx.Response
Headers = list[tuple[str, str]]

BROKEN = httpx.TransportError
"""Exceptions of reading a response's body when the connection fails."""

REPLY_LIMIT = 256 << 10
"""Limit in bytes of a short answer: an error, a token."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_STALL_S = 60.0  # no byte for so long: the connection is closed, and a download resumed
_ANSWER_S = 120.0  # from connecting to the last header
_CONNECT_S = 30.0  # as containerd's dialer
_BRISK_CONNECT_S = 5.0
_PIECE = 1 << 20
_NO_PACE_S = 0.05
_BUSY_PACE_S = 1.0
_CLOSED = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
_AS_IS = httpx.Auth()  # a user in a foreign URL must not replace our Authorization


class Failure(Exception):
    """Why a request, with its redirects, failed; `kind`: the error to raise if nothing else can be tried.

    `transient`: the same endpoint can be retried: after `delay_s` if the server requested it (RFC 9110
    §10.2.3), else after a pause that grows from `pace_s`. `progress`: new bytes were received. `status`: of
    the response, 0 without one.
    """

    def __init__(
        self,
        kind: type[PhantomError],
        reason: str,
        *,
        transient: bool = False,
        delay_s: float | None = None,
        status: int = 0,
    ) -> None:
        super().__init__(reason)
        self.kind, self.reason, self.transient, self.delay_s = kind, reason, transient, delay_s
        self.status = status
        self.pace_s = _BUSY_PACE_S if status == 429 else _NO_PACE_S
        self.progress = False


class SpeaksPlain(Exception):
    """The endpoint has no TLS and may be used without: from now on `Wire.base` is its http URL."""


class _ServerError(Document, frozen=True):
    code: str | None = None
    message: str | None = None


class _ServerErrors(Document, frozen=True):
    errors: tuple[_ServerError, ...] | None = None


class _Dial:
    """Events of one connection from httpcore's `trace` extension.

    Closes it when its TLS handshake is cancelled: httpcore 1.0.9 does so only for errors
    (`start_tls` of _backends/anyio.py).
    """

    def __init__(self) -> None:
        self.connected: Any = None

    async def __call__(self, event: str, details: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            self.connected = details["return_value"]
        elif event == "connection.start_tls.failed":
            await self.connected.aclose()


class Wire:
    """Connections to one endpoint, and to the hosts it redirects to, during one pull.

    `brisk`: other endpoints can be tried, so the timeout is shorter.
    `unreachable`: all connections failed, without any answer.
    """

    def __init__(self, endpoint: Endpoint, *, brisk: bool) -> None:
        self.endpoint = endpoint
        self.base = endpoint.url
        self.unreachable = False
        self._answered = False
        self._brisk = brisk
        self._clients: dict[tuple[bool, bool, bool], httpx.AsyncClient] = {}

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    def is_own(self, url: str) -> bool:
        """Whether secrets for the endpoint may be sent to `url`."""
        return same_host(url, self.base)

    async def send(
        self,
        method: str,
        url: str,
        headers: Headers,
        *,
        own: bool,
        form: dict[str, str] | None = None,
        brisk_s: float = _ANSWER_S,
    ) -> Response:
        """The response, body not yet read; the caller closes it. Raises Failure, SpeaksPlain.

        `own`: with the client certificate of the endpoint. `brisk_s`: timeout of the answer if there are
        other endpoints.
        """
        dial = _Dial()
        try:
            client = await self._client(own, url)
            request = client.build_request(
                method,
                url,
                headers=[("Accept-Encoding", "identity"), *headers],
                data=form,
            )
            async with asyncio.timeout(brisk_s if self._brisk else _ANSWER_S):
                response = await _exchange(client, request, dial)
            self._answered = self._answered or own
            return response
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            self._not_connected(own, dial)
            raise broken(url, error) from None
        except httpx.TransportError as error:
            raise broken(url, error) from None
        except TimeoutError:
            raise Failure(RegistryUnavailable, f"{shown(url)}: no answer in time", transient=True) from None
        except (httpx.InvalidURL, UnicodeError, ValueError):
            raise Failure(FailedPrecondition, f"cannot use the URL {shown(url)!r}") from None

    def _not_connected(self, own: bool, dial: _Dial) -> None:
        if not own or self._answered:
            return
        parts = urlsplit(self.base)
        other_port = parts.port is None  # then plain HTTP is on another port
        if self.endpoint.plain_fallback and parts.scheme == "https" and (dial.connected or other_port):
            self.base = "http" + self.base.removeprefix("https")
            raise SpeaksPlain from None
        self.unreachable = True

    async def _client(self, own: bool, url: str) -> httpx.AsyncClient:
        """A client with the endpoint's client certificate, or one without for other hosts.

        TLS on loopback needs no authority (`hosts`), but hosts that it redirects to do.
        """
        implied = self.endpoint.skip_verify and is_loopback(self.endpoint.host)
        skip = self.endpoint.skip_verify and (own or not implied or is_loopback(urlsplit(url).netloc))
        plain = own and url.startswith("http:")
        key = (own, skip, plain)
        if key not in self._clients:
            endpoint = replace(self.endpoint, skip_verify=skip, client=self.endpoint.client if own else ())
            try:
                verify = False if plain else await asyncio.to_thread(_tls, endpoint)
            except (OSError, ssl.SSLError) as error:
                raise Failure(FailedPrecondition, f"TLS files of {endpoint.host}: {error}") from None
            connect_s = endpoint.dial_timeout or (_BRISK_CONNECT_S if self._brisk else _CONNECT_S)
            timeout = httpx.Timeout(_STALL_S, connect=connect_s, pool=None)
            self._clients.setdefault(key, httpx.AsyncClient(verify=verify, timeout=timeout))
        return self._clients[key]


async def _exchange(client: httpx.AsyncClient, request: httpx.Request, dial: _Dial) -> Response:
    """Send the request, and again if the server has closed a reused connection (RFC 9112 §9.3.1)."""
    auth = _AS_IS if "Authorization" in request.headers else None
    request.extensions["trace"] = dial
    while True:
        try:
            return await client.send(request, stream=True, auth=auth, follow_redirects=False)
        except _CLOSED:
            if dial.connected or request.method == "POST":
                raise


async def refused(response: Response, doing: str, redact: Callable[[str], str]) -> Failure:
    """The failure for a status other than success, with the registry's message."""
    status, url = response.status_code, str(response.url)
    said = await _server_says(response, redact)
    reason = (
        f"{doing}{response.request.method} {shown(url)}: {status} {printable(response.reason_phrase)}{said}"
    )
    if status == 404:
        return Failure(NotFound, f"not found ({reason})", status=status)
    if status == 401:
        words = "pull access denied, repository does not exist or may require authorization"
        return Failure(Unauthenticated, f"{words} ({reason})", status=status)
    if status == 403:
        return Failure(PermissionDenied, f"pull access denied ({reason})", status=status)
    if status in (408, 429) or (status >= 500 and status not in (501, 505)):
        delay_s = retry_after(response.headers, time.time())
        later = f", to be asked again after {delay_s:.0f} s" if delay_s else ""
        return Failure(
            RegistryUnavailable, f"{reason}{later}", transient=True, delay_s=delay_s, status=status
        )
    return Failure(FailedPrecondition, f"unexpected status ({reason})", status=status)


def redirected_to(response: Response) -> str:
    """The absolute URL of a redirect; "" if it is not one. Raises Failure for an unusable one."""
    location = str(response.headers.get("Location", ""))
    if response.status_code not in _REDIRECTS or not location:
        return ""
    try:
        target = urljoin(str(response.url), location)
    except ValueError:
        target = ""
    if not usable(target):
        raise Failure(FailedPrecondition, f"{shown(str(response.url))}: redirects to no http or https URL")
    return target


async def read_body(response: Response, limit: int) -> bytes:
    """The whole body. Raises Failure if it is longer than `limit` bytes or the connection breaks."""
    content = bytearray()
    try:
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > limit:
                break
    except httpx.TransportError as error:
        raise broken(str(response.url), error) from None
    if content_encoding(response) == "gzip" and content[:2] == b"\x1f\x8b":
        try:
            content = bytearray(zlib.decompressobj(wbits=31).decompress(content, limit + 1))
        except zlib.error as error:
            raise Failure(FailedPrecondition, f"{shown(str(response.url))}: gzip: {error}") from None
    if len(content) > limit:
        raise Failure(FailedPrecondition, f"{shown(str(response.url))}: answer longer than {limit} bytes")
    return bytes(content)


def content_encoding(response: Response) -> str:
    """In lower case, "" for none (RFC 9110 §8.4.1: x-gzip is gzip)."""
    named = str(response.headers.get("Content-Encoding", "")).strip().lower()
    return {"identity": "", "x-gzip": "gzip"}.get(named, named)


async def gunzipped(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """In pieces of bounded size, for any compression ratio. Raises zlib.error."""
    inflater = zlib.decompressobj(wbits=31)
    async for chunk in chunks:
        while chunk:
            yield inflater.decompress(chunk, _PIECE)
            chunk = inflater.unconsumed_tail


def retry_after(headers: httpx.Headers, now: float) -> float | None:
    """Seconds from `Retry-After`, a number or an HTTP date (RFC 9110 §10.2.3); None without a usable one.

    A date is compared with the server's clock, if it sends one, as ours may be wrong.
    """
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    then = _http_date(value)
    if then is None:
        return None
    return max(0.0, then - (_http_date(headers.get("Date", "")) or now))


def broken(url: str, error: Exception) -> Failure:
    """The failure for a connection that could not be established or broke."""
    why = printable(str(error) or type(error).__name__)
    return Failure(RegistryUnavailable, f"{shown(url)}: {why}", transient=True)


def same_host(one: str, other: str) -> bool:
    """Whether secrets for `other` may be sent to `one`: same host and port, or its https default port."""
    a, b = urlsplit(one), urlsplit(other)
    upgraded = (b.scheme, _port(b), a.scheme, _port(a)) == ("http", 80, "https", 443)
    same = (a.scheme, _port(a)) == (b.scheme, _port(b)) or (a.scheme == "https" and _port(a) == _port(b))
    return a.hostname is not None and a.hostname == b.hostname and (same or upgraded)


def usable(url: str) -> bool:
    """Whether `url` is an absolute http or https URL, as the functions here need."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def shown(url: str) -> str:
    """A URL without user, query and fragment, which may contain secrets."""
    parts = urlsplit(url)
    return printable(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


def printable(text: str, limit: int = 400) -> str:
    """The beginning of a foreign text, as one printable line."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:limit])


async def _server_says(response: Response, redact: Callable[[str], str]) -> str:
    """The registry's message, in one short line and without our secrets."""
    try:
        found = from_json(await read_body(response, REPLY_LIMIT), _ServerErrors).errors or ()
    except DECODE_ERRORS:
        return ""
    except Failure:
        return ""
    text = printable(redact("; ".join(f"{each.code}: {each.message}" for each in found)), 300)
    return f": server says {text}" if text else ""


def _http_date(value: str) -> float | None:
    try:
        when: datetime = parsedate_to_datetime(value)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _port(parts: Any) -> int | None:
    return parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _tls(endpoint: Endpoint) -> ssl.SSLContext:
    if endpoint.skip_verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # avoids loading authorities, which takes time
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = ssl.create_default_context()
    for file in endpoint.ca:
        context.load_verify_locations(cafile=file)
    for certificate, key in endpoint.client:
        context.load_cert_chain(certificate, key or None)
    return context

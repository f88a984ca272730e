"""Single HTTP requests for one endpoint of a registry, and what failures mean. The one home of httpx.

No redirect is followed and no challenge answered here: `connection` does both.
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
"""What reading the body of a response raises when the connection fails."""

REPLY_LIMIT = 256 << 10
"""Bytes of an answer that is only a few words: an error, a token."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_STALL_S = 60.0  # no byte for so long: the connection is given up, and a download resumed
_ANSWER_S = 120.0  # from the start of connecting to the last header
_CONNECT_S = 30.0  # as containerd's dialer
_BRISK_CONNECT_S = 5.0
_PIECE = 1 << 20
_NO_PACE_S = 0.05
_BUSY_PACE_S = 1.0
_CLOSED = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
_AS_IS = httpx.Auth()  # a user in a URL that someone else chose must not replace our Authorization


class Failure(Exception):
    """Why one request, or all that it led to, failed; `kind`: the error it is if nothing else can be tried.

    `transient`: may pass, so the same endpoint is worth another attempt: after `delay_s` when the
    server said so (RFC 9110 §10.2.3), else after a pause that grows from `pace_s`. `progress`: it
    brought something that was not there before. `status`: of the response, 0 when there was none.
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
    """The endpoint does not speak TLS and may be used without: `Wire.base` is its http URL from now on."""


class _ServerError(Document, frozen=True):
    code: str | None = None
    message: str | None = None


class _ServerErrors(Document, frozen=True):
    errors: tuple[_ServerError, ...] | None = None


class _Dial:
    """What httpcore says of one connection by its `trace` extension.

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
    """Connections to one endpoint, and to the hosts it leads to, for the time of one pull.

    `brisk`: other endpoints can be tried, so this one gets less time to answer.
    `unreachable`: could not be connected to and never answered.
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
        """Whether secrets for the endpoint may go to `url`."""
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

        `own`: with the client certificate of the endpoint. `brisk_s`: how long the answer may
        take if there are other endpoints.
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
        other_port = parts.port is None  # then plain HTTP is at a port of its own
        if self.endpoint.plain_fallback and parts.scheme == "https" and (dial.connected or other_port):
            self.base = "http" + self.base.removeprefix("https")
            raise SpeaksPlain from None
        self.unreachable = True

    async def _client(self, own: bool, url: str) -> httpx.AsyncClient:
        """One with the endpoint's client certificate, or one without for other hosts.

        TLS of loopback needs no authority (`hosts`); that is no word on the hosts it leads to.
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
    """Sent once more if the server has closed a connection that was left open (RFC 9112 §9.3.1)."""
    auth = _AS_IS if "Authorization" in request.headers else None
    request.extensions["trace"] = dial
    while True:
        try:
            return await client.send(request, stream=True, auth=auth, follow_redirects=False)
        except _CLOSED:
            if dial.connected or request.method == "POST":
                raise


async def refused(response: Response, doing: str, redact: Callable[[str], str]) -> Failure:
    """What a status other than success means; the registry's own words are in it."""
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
    """The URL that a redirect names, absolute; "" when it is none. Raises Failure for one that is no use."""
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
    """The whole body, or Failure when it is longer than `limit` bytes or breaks off."""
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
    """In lower case, "" when there is none (RFC 9110 §8.4.1: x-gzip is gzip)."""
    named = str(response.headers.get("Content-Encoding", "")).strip().lower()
    return {"identity": "", "x-gzip": "gzip"}.get(named, named)


async def gunzipped(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """In pieces of bounded size, however well the content is compressed. Raises zlib.error."""
    inflater = zlib.decompressobj(wbits=31)
    async for chunk in chunks:
        while chunk:
            yield inflater.decompress(chunk, _PIECE)
            chunk = inflater.unconsumed_tail


def retry_after(headers: httpx.Headers, now: float) -> float | None:
    """Seconds from `Retry-After`, a number or an HTTP date (RFC 9110 §10.2.3); None without a usable one.

    A date is taken by the server's own clock when it gives one, so that ours may be wrong.
    """
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    then = _http_date(value)
    if then is None:
        return None
    return max(0.0, then - (_http_date(headers.get("Date", "")) or now))


def broken(url: str, error: Exception) -> Failure:
    """A connection that could not be made or that failed."""
    why = printable(str(error) or type(error).__name__)
    return Failure(RegistryUnavailable, f"{shown(url)}: {why}", transient=True)


def same_host(one: str, other: str) -> bool:
    """Whether secrets for `other` may go to `one`: the same host and port, or its https at the usual port."""
    a, b = urlsplit(one), urlsplit(other)
    upgraded = (b.scheme, _port(b), a.scheme, _port(a)) == ("http", 80, "https", 443)
    same = (a.scheme, _port(a)) == (b.scheme, _port(b)) or (a.scheme == "https" and _port(a) == _port(b))
    return a.hostname is not None and a.hostname == b.hostname and (same or upgraded)


def usable(url: str) -> bool:
    """Whether `url` is an absolute http or https URL, so that the functions here can take it apart."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def shown(url: str) -> str:
    """A URL without user, query and fragment, which can be secrets."""
    parts = urlsplit(url)
    return printable(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


def printable(text: str, limit: int = 400) -> str:
    """The beginning of what a stranger sent, fit for one line of a log."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:limit])


async def _server_says(response: Response, redact: Callable[[str], str]) -> str:
    """The registry's own words, in one short line and without our secrets."""
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

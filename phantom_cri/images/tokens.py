"""Authentication to one host: Basic, or a token of the distribution token protocol."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from phantom_cri.codec import Document, from_json
from phantom_cri.errors import Unauthenticated
from phantom_cri.images.auth import Challenge, Credentials, choose, parse_challenges
from phantom_cri.images.hosts import is_loopback
from phantom_cri.images.manifest import DECODE_ERRORS
from phantom_cri.images.wire import (
    REPLY_LIMIT,
    Failure,
    Headers,
    Response,
    Wire,
    read_body,
    redirected_to,
    refused,
    same_host,
    shown,
    usable,
)

_REDIRECT_LIMIT = 5


class _TokenReply(Document, frozen=True):
    token: str | None = None
    access_token: str | None = None


class Access:
    """For the requests of one pull to one host. `authorization`: value of the header, "" for none.

    `credentials` None: anonymous, as for every host after a redirect.
    """

    def __init__(self, wire: Wire, repository: str, credentials: Credentials | None, *, own: bool) -> None:
        self.authorization = ""
        self._wire = wire
        self._repository = repository
        self._credentials = credentials
        self._own = own
        self._answering = asyncio.Lock()

    def redact(self, text: str) -> str:
        """`text` without our secrets, in case a server echoed them."""
        text = self._credentials.redact(text) if self._credentials else text
        token = self.authorization.partition(" ")[2]
        return text.replace(token, "[redacted]") if token else text

    async def answer(self, response: Response, sent: str) -> None:
        """Set the `authorization` that a 401 to a request with `sent` requires.

        Raises Failure if there is none, or it was already tried.
        """
        async with self._answering:
            if self.authorization != sent:
                return  # a concurrent request did it
            challenge = choose(parse_challenges(response.headers.get_list("WWW-Authenticate")))
            credentials = self._credentials
            bearer = credentials.bearer if credentials else ""
            if challenge is None or challenge.parameters.get("error") == "insufficient_scope":
                raise await refused(response, "", self.redact)
            if challenge.scheme == "basic":
                if sent or credentials is None or not (credentials.username and credentials.password):
                    raise await refused(response, "", self.redact)
                self.authorization = credentials.basic()
            elif bearer:
                if sent:
                    raise await refused(response, "", self.redact)
                self.authorization = f"Bearer {bearer}"
            else:
                self.authorization = f"Bearer {await self._token(challenge)}"

    async def _token(self, challenge: Challenge) -> str:
        realm = challenge.parameters.get("realm", "")
        if not usable(realm):
            raise Failure(Unauthenticated, f"token: realm {realm[:200]!r} is not an absolute URL")
        if self._credentials is not None and not self._is_safe(realm):
            raise Failure(Unauthenticated, f"token: credentials are not sent in the clear to {shown(realm)}")
        scopes = challenge.parameters.get("scope", "").split() or [f"repository:{self._repository}:pull"]
        service = [("service", challenge.parameters["service"])] if "service" in challenge.parameters else []
        if self._credentials is not None and self._credentials.is_identity:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": self._credentials.password,
                "client_id": "phantom-cri",
                "scope": " ".join(scopes),
                **dict(service),
            }
            response = await self._wire.send("POST", realm, [], own=self._is_own(realm), form=form)
        else:
            query = [*service, *(("scope", scope) for scope in scopes)]
            response = await self._get(_with_query(realm, query))
        try:
            return await self._token_from(response, realm)
        finally:
            await response.aclose()

    async def _get(self, url: str) -> Response:
        """Follows redirects; credentials are only sent to the host named in the challenge."""
        target = url
        basic = self._credentials.basic() if self._credentials else ""
        for _ in range(_REDIRECT_LIMIT + 1):
            headers: Headers = [("Authorization", basic)] if basic and same_host(target, url) else []
            response = await self._wire.send("GET", target, headers, own=self._is_own(target))
            target = redirected_to(response)
            if not target:
                return response
            await response.aclose()
        raise Failure(Unauthenticated, f"token: more than {_REDIRECT_LIMIT} redirects from {shown(url)}")

    async def _token_from(self, response: Response, realm: str) -> str:
        if response.status_code != 200:
            raise await refused(response, "failed to fetch a token: ", self.redact)
        try:
            reply = from_json(await read_body(response, REPLY_LIMIT), _TokenReply)
        except DECODE_ERRORS:
            reply = _TokenReply()
        token = reply.token or reply.access_token or ""
        if not re.fullmatch(r"[!-~]+", token):
            raise Failure(Unauthenticated, f"token: {shown(realm)} answered without a token")
        return token

    def _is_own(self, url: str) -> bool:
        return self._own and self._wire.is_own(url)

    def _is_safe(self, realm: str) -> bool:
        """Whether credentials may be sent there: by TLS, on this machine, or if the registry has no TLS."""
        parts, base = urlsplit(realm), urlsplit(self._wire.base)
        plain_registry = base.scheme == "http" and base.hostname == parts.hostname
        return parts.scheme == "https" or is_loopback(parts.netloc) or plain_registry


def _with_query(url: str, items: list[tuple[str, str]]) -> str:
    """`url` with parameters, replacing those with the same names."""
    parts, names = urlsplit(url), {name for name, _ in items}
    kept = [each for each in parse_qsl(parts.query, keep_blank_values=True) if each[0] not in names]
    return urlunsplit(parts._replace(query=urlencode([*kept, *items]), fragment=""))

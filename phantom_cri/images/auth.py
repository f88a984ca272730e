"""Credentials of one pull, and registries' challenges (RFC 9110 §11, distribution token spec).

Secrets are never logged, stored or shown by `repr`: they leave this module only as the value of an
Authorization header or as the body of a token request.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from phantom_cri.errors import InvalidArgument
from phantom_cri.images.hosts import Endpoint
from phantom_cri.model import AuthConfig

_DOCKER_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  RFC 9110 token, not a secret
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?:\s+|\s*(?=,|$))(?!=)")
_PARAMETER = re.compile(rf'[\s,]*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))\s*(?=,|$)')


@dataclass(frozen=True, slots=True)
class Challenge:
    """One authentication scheme offered by a registry; `scheme` and parameter names in lower case."""

    scheme: str
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user with a password, an identity token (no user), or a ready bearer token."""

    username: str = ""
    password: str = field(default="", repr=False)
    bearer: str = field(default="", repr=False)

    @property
    def is_identity(self) -> bool:
        return not self.username and bool(self.password)

    def basic(self) -> str:
        """Value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    def redact(self, text: str) -> str:
        """`text` without our secrets, in case a server echoed them."""
        encoded = self.basic().removeprefix("Basic ")
        for secret in (self.password, self.bearer, encoded):
            text = text.replace(secret, "[redacted]") if secret else text
        return text


def credentials_for(auth: AuthConfig | None, domain: str, endpoint: Endpoint) -> Credentials | None:
    """The credentials for `endpoint` in a pull from registry `domain`; None: anonymous.

    With `server_address`, they are sent only to that host, and to the registry itself under any of its names.
    Without, also to the mirrors configured for it, as in containerd; but not without TLS.
    Raises InvalidArgument for an `auth` field that is not base64 of `user:password`.
    """
    if auth is None:
        return None
    if auth.server_address:
        names = (domain, endpoint.host) if endpoint.origin else (endpoint.host,)
        if not _meant_for(auth.server_address, names):
            return None
    elif endpoint.is_plain and not endpoint.origin:
        return None
    if auth.username:
        return Credentials(auth.username, auth.password)
    if auth.identity_token:
        return Credentials("", auth.identity_token)
    if auth.auth:
        return _decoded(auth.auth)
    if auth.registry_token:
        return Credentials(bearer=auth.registry_token)
    return None


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of the WWW-Authenticate headers; several may share one line, quoted commas included."""
    found: list[Challenge] = []
    for header in headers:
        position = 0
        while position < len(header):
            parameter = _PARAMETER.match(header, position)
            scheme = None if parameter else _SCHEME.match(header, position)
            if parameter and found:
                value = parameter[3] if parameter[2] is None else re.sub(r"\\(.)", r"\1", parameter[2])
                found[-1].parameters.setdefault(parameter[1].lower(), value)
            elif scheme:
                found.append(Challenge(scheme[1].lower(), {}))
            match = parameter or scheme
            if match is None:
                break
            position = match.end()
    return found


def choose(challenges: Iterable[Challenge]) -> Challenge | None:
    """Bearer is preferred to Basic; other schemes are not supported."""
    known = {challenge.scheme: challenge for challenge in reversed(list(challenges))}
    return known.get("bearer") or known.get("basic")


def _meant_for(server_address: str, names: Iterable[str]) -> bool:
    named = urlsplit(server_address if "://" in server_address else f"//{server_address}").netloc.lower()
    allowed = {name.lower() for name in names}
    return named in allowed or (named in _DOCKER_HOSTS and not allowed.isdisjoint(_DOCKER_HOSTS))


def _decoded(auth: str) -> Credentials:
    try:
        text = base64.b64decode(auth + "=" * (-len(auth) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidArgument("auth.auth is not base64") from None
    username, colon, password = text.partition(":")
    if not colon:
        raise InvalidArgument("auth.auth is not base64 of user:password")
    return Credentials(username, password.rstrip("\0"))

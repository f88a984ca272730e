"""Challenges and credentials."""

from __future__ import annotations

import base64

import pytest

from phantom_cri.errors import InvalidArgument
from phantom_cri.images.auth import Challenge, Credentials, choose, credentials_for, parse_challenges
from phantom_cri.images.hosts import Endpoint
from phantom_cri.model import AuthConfig

SECRET = "hunter2-secret"
QUAY = Endpoint("https://quay.io/v2", origin=True)
MIRROR = Endpoint("https://mirror.example/v2")
PLAIN = Endpoint("http://plain.example/v2")


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            ['Bearer realm="https://a/t",service="s",scope="repository:x:pull,push"'],
            [("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:x:pull,push"})],
        ),
        (['BASIC Realm="r"'], [("basic", {"realm": "r"})]),
        (["Basic"], [("basic", {})]),
        (
            ['Basic realm="x, y", Bearer realm="https://a/t" , scope="a b"'],
            [("basic", {"realm": "x, y"}), ("bearer", {"realm": "https://a/t", "scope": "a b"})],
        ),
        (
            ["Negotiate", "Bearer realm=https://a/t,service=s"],
            [("negotiate", {}), ("bearer", {"realm": "https://a/t", "service": "s"})],
        ),
        (['Bearer realm="say \\"hi\\""'], [("bearer", {"realm": 'say "hi"'})]),
        (["Negotiate, Basic realm=r"], [("negotiate", {}), ("basic", {"realm": "r"})]),
        ([""], []),
        (["=,;"], []),
        (['Bearer realm="unclosed'], [("bearer", {})]),
    ],
)
def test_challenges(headers: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(each.scheme, each.parameters) for each in parse_challenges(headers)] == expected


def test_bearer_is_preferred() -> None:
    basic, bearer = Challenge("basic", {}), Challenge("bearer", {})
    assert choose([basic, bearer]) is bearer
    assert choose([basic]) is basic
    assert choose([Challenge("digest", {})]) is None


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        (AuthConfig(username="u", password=SECRET), Credentials("u", SECRET)),
        (AuthConfig(identity_token=SECRET), Credentials("", SECRET)),
        (AuthConfig(auth=encoded(f"u:{SECRET}:x\0\0")), Credentials("u", f"{SECRET}:x")),
        (AuthConfig(registry_token=SECRET), Credentials(bearer=SECRET)),
        (AuthConfig(), None),
        (None, None),
        (AuthConfig(username="u", password="p", server_address="https://quay.io/v2/"), Credentials("u", "p")),
        (AuthConfig(username="u", password="p", server_address="quay.io"), Credentials("u", "p")),
        (AuthConfig(username="u", password="p", server_address="https://evil.io"), None),
        (AuthConfig(username="u", password="p", server_address="quay.io.evil.io"), None),
    ],
)
def test_credentials(auth: AuthConfig | None, expected: Credentials | None) -> None:
    assert credentials_for(auth, "quay.io", QUAY) == expected


@pytest.mark.parametrize(
    ("server_address", "endpoint", "given"),
    [
        ("", QUAY, True),
        ("", MIRROR, True),
        ("", PLAIN, False),
        ("", Endpoint("https://plain.example:80/v2", plain_fallback=True), False),
        ("", Endpoint("http://127.0.0.1:5000/v2"), True),
        ("", Endpoint("http://quay.io/v2", origin=True), True),
        ("quay.io", MIRROR, False),
        ("https://QUAY.io/v2/", QUAY, True),
        ("https://mirror.example", QUAY, False),
        ("https://mirror.example", MIRROR, True),
        ("http://plain.example", PLAIN, True),
        ("https://mirror.example:5000", MIRROR, False),
    ],
)
def test_who_gets_credentials(server_address: str, endpoint: Endpoint, given: bool) -> None:
    auth = AuthConfig(username="u", password=SECRET, server_address=server_address)
    assert (credentials_for(auth, "quay.io", endpoint) is not None) is given


def test_docker_hub_by_any_of_its_names() -> None:
    auth = AuthConfig(username="u", password="p", server_address="https://index.docker.io/v1/")
    hub = Endpoint("https://registry-1.docker.io/v2", origin=True)
    assert credentials_for(auth, "docker.io", hub) is not None
    assert credentials_for(auth, "docker.io", MIRROR) is None


@pytest.mark.parametrize("auth", ["not base64!", encoded("nocolon"), "/////w=="])
def test_auth_field_refused_without_showing_it(auth: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        credentials_for(AuthConfig(auth=auth), "quay.io", QUAY)
    assert auth not in str(caught.value)


def test_secrets_do_not_show() -> None:
    credentials = Credentials("user", SECRET)
    assert SECRET not in repr(credentials) + str(credentials)
    echoed = f"bad {SECRET} or {credentials.basic()}"
    assert SECRET not in credentials.redact(echoed)
    assert encoded(f"user:{SECRET}") not in credentials.redact(echoed)
    assert SECRET not in repr(Credentials(bearer=SECRET))

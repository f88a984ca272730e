"""Hosts, URLs and dates as servers send them."""

from __future__ import annotations

import httpx
import pytest

from phantom_cri.images.wire import Failure, printable, redirected_to, retry_after, same_host, shown, usable


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("https://r.example/x", "https://r.example/v2", True),
        ("https://r.example:443/x", "https://r.example/v2", True),
        ("https://R.EXAMPLE/x", "https://r.example/v2", True),
        ("https://r.example/x", "http://r.example/v2", True),
        ("https://r.example:5000/x", "http://r.example:5000/v2", True),
        ("http://r.example/x", "https://r.example/v2", False),
        ("http://r.example:443/x", "https://r.example/v2", False),
        ("http://r.example:5000/x", "https://r.example:5000/v2", False),
        ("https://r.example:8443/x", "https://r.example/v2", False),
        ("https://r.example:8443/x", "http://r.example:5000/v2", False),
        ("https://cdn.r.example/x", "https://r.example/v2", False),
        ("https://r.example@evil.example/x", "https://r.example/v2", False),
        ("https://r.example.evil.example/x", "https://r.example/v2", False),
        ("https://r.example./x", "https://r.example/v2", False),
    ],
)
def test_where_secrets_may_go(one: str, other: str, expected: bool) -> None:
    assert same_host(one, other) is expected


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/other", "https://r.example/other"),
        ("blobs/x?sig=1", "https://r.example/v2/blobs/x?sig=1"),
        ("//cdn.example/x", "https://cdn.example/x"),
        ("http://cdn.example:8080/x", "http://cdn.example:8080/x"),
        ("", ""),
    ],
)
def test_redirects(location: str, expected: str) -> None:
    assert redirected_to(answer(307, Location=location)) == expected


@pytest.mark.parametrize(
    "location",
    [
        "ftp://cdn.example/x",
        "file:///etc/passwd",
        "http://[bad/x",
        "http://h:99999999/x",
        "data:,x",
        "http://h:0/",
    ],
)
def test_redirects_to_nowhere(location: str) -> None:
    with pytest.raises(Failure) as caught:
        redirected_to(answer(302, Location=location))
    assert caught.value.kind.code == "FAILED_PRECONDITION"
    assert not usable(location)


def test_a_location_without_a_redirect_is_none() -> None:
    assert redirected_to(answer(201, Location="/x")) == ""


def test_urls_are_shown_without_secrets() -> None:
    assert shown("https://user:pass@h:1/path?X-Amz-Signature=abc#frag") == "https://h:1/path"
    assert len(shown("https://h/" + "x" * 9000)) <= 400
    assert printable("a\nb\x1b[2J\u202e") == "a b [2J "


NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": " 0 "}, 0),
        ({"Retry-After": "Tue, 14 Nov 2023 22:13:30 GMT"}, 10),
        ({"Retry-After": "Tuesday, 14-Nov-23 22:13:30 GMT"}, 10),
        ({"Retry-After": "Tue Nov 14 22:13:30 2023"}, 10),
        ({"Retry-After": "Tue, 14 Nov 2023 22:13:10 GMT"}, 0),
        (
            {"Retry-After": "Tue, 14 Nov 2000 10:00:05 GMT", "Date": "Tue, 14 Nov 2000 10:00:00 GMT"},
            5,
        ),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": "\u0663"}, None),
        ({"Retry-After": "Tue, 14 Nov 99999999 22:13:30 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    raw = httpx.Headers([(name.encode(), value.encode()) for name, value in headers.items()])
    assert retry_after(raw, NOW) == expected


def answer(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers=headers, request=httpx.Request("GET", "https://r.example/v2/y"))

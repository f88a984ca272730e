"""References, against the rules of distribution/reference."""

from __future__ import annotations

import pytest

from phantom_cri.errors import InvalidArgument
from phantom_cri.images import reference

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("foo/bar", "docker.io/foo/bar:latest"),
        ("foo.bar", "docker.io/library/foo.bar:latest"),
        ("localhost/foo", "localhost/foo:latest"),
        ("host:5000/a/b:v1", "host:5000/a/b:v1"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
        ("docker.io/busybox:1.36", "docker.io/library/busybox:1.36"),
        ("Host/foo", "Host/foo:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ("127.0.0.1:5000/a__b--c.d", "127.0.0.1:5000/a__b--c.d:latest"),
        (f"busybox@sha256:{HEX}", f"docker.io/library/busybox@sha256:{HEX}"),
        (f"busybox:1@sha256:{HEX}", f"docker.io/library/busybox@sha256:{HEX}"),
        (f"quay.io/a/b@sha512:{HEX}{HEX}", f"quay.io/a/b@sha512:{HEX}{HEX}"),
    ],
)
def test_normalised(text: str, canonical: str) -> None:
    assert reference.parse(text).canonical == canonical
    assert reference.parse(canonical).canonical == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "UPPER",
        "foo/Bar",
        "a//b",
        "/a",
        "a/",
        "-a",
        "a..b",
        "a___b",
        "a:",
        "a:.tag",
        "a:" + "t" * 129,
        HEX,
        f"a@sha256:{HEX[:-1]}",
        f"a@sha256:{HEX.upper()}",
        f"a@md5:{HEX}",
        "a@",
        "host:port/x",
        "http://host/x",
        "x" * 300,
        "a b",
        "a\n",
        "../etc/passwd",
        "host/../x",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="image reference"):
        reference.parse(text)

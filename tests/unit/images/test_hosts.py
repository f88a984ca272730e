"""hosts.toml trees, as containerd reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from phantom_cri.errors import FailedPrecondition
from phantom_cri.images.hosts import endpoints, is_loopback

FULL = """
server = "https://upstream.example"
ca = "up.pem"
[host."https://b.example:5000"]
  capabilities = ["pull", "resolve"]
  ca = ["one.pem", "two.pem"]
  client = [["c.cert", "c.key"], ["both.pem"]]
  dial_timeout = "1m30s"
  [host."https://b.example:5000".header]
    x-a = ["1", "2"]
[host."a.example/path"]
  skip_verify = true
[host."https://c.example/custom"]
  override_path = true
"""


def write(root: Path, folder: str, text: str) -> Path:
    (root / folder).mkdir(parents=True)
    (root / folder / "hosts.toml").write_text(text)
    return root


def test_everything_in_order(tmp_path: Path) -> None:
    found = endpoints("r.example", write(tmp_path, "r.example", FULL))
    assert [each.url for each in found] == [
        "https://b.example:5000/v2",
        "https://a.example/path/v2",
        "https://c.example/custom",
        "https://upstream.example/v2",
    ]
    first = found[0]
    folder = tmp_path / "r.example"
    assert first.ca == (f"{folder}/one.pem", f"{folder}/two.pem")
    assert first.client == ((f"{folder}/c.cert", f"{folder}/c.key"), (f"{folder}/both.pem", ""))
    assert first.dial_timeout == 90
    assert first.headers == (("x-a", "1"), ("x-a", "2"))
    assert first.capabilities == {"pull", "resolve"}
    assert found[1].skip_verify
    assert found[1].dial_timeout is None
    assert found[3].ca == (f"{folder}/up.pem",)
    assert not any(each.origin for each in found)


@pytest.mark.parametrize("folder", ["h.example_5000_", "h.example:5000", "h.example", "_default"])
def test_folder_names(tmp_path: Path, folder: str) -> None:
    write(tmp_path, folder, '[host."http://mirror.example"]\n')
    found = endpoints("h.example:5000", f"/nonexistent:{tmp_path}")
    assert [each.url for each in found] == ["http://mirror.example/v2", "https://h.example:5000/v2"]
    assert [each.origin for each in found] == [False, True]


def test_docker_hub_and_loopback_without_configuration() -> None:
    assert [(each.url, each.origin) for each in endpoints("docker.io", None)] == [
        ("https://registry-1.docker.io/v2", True)
    ]
    (local,) = endpoints("localhost:5000", None)
    assert (local.url, local.plain_fallback, local.is_plain) == ("https://localhost:5000/v2", True, False)


def test_plain_http_with_tls_settings_tries_tls_first(tmp_path: Path) -> None:
    write(tmp_path, "r.example", '[host."http://m.example:8080"]\nskip_verify = true\n')
    mirror, origin = endpoints("r.example", tmp_path)
    assert (mirror.url, mirror.plain_fallback, mirror.is_plain) == ("https://m.example:8080/v2", True, True)
    assert not origin.plain_fallback
    assert not origin.is_plain


def test_docker_style_files(tmp_path: Path) -> None:
    (tmp_path / "r.example").mkdir()
    for name in ("ca.crt", "me.cert", "me.key"):
        (tmp_path / "r.example" / name).write_text("")
    (found,) = endpoints("r.example", tmp_path)
    assert found.ca == (str(tmp_path / "r.example/ca.crt"),)
    assert found.client == ((str(tmp_path / "r.example/me.cert"), str(tmp_path / "r.example/me.key")),)


@pytest.mark.parametrize(
    "text",
    [
        "server = [",
        "server = 5",
        "host = 5",
        '[host."ftp://x"]',
        '[host."https://user:pw@x"]',
        '[host."https://x"]\ndial_timeout = "soon"',
        '[host."https://x"]\nca = 5',
        '[host."https://x"]\nclient = [["a", "b", "c"]]',
        '[host]\n"https://x" = 5',
    ],
)
def test_refused_by_file_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(FailedPrecondition, match=r"r\.example/hosts\.toml"):
        endpoints("r.example", write(tmp_path, "r.example", text))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.1.2.3:80", True),
        ("[::1]:5000", True),
        ("localhost.evil.io", False),
        ("127.0.0.1.evil.io", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected

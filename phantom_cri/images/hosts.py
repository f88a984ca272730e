"""The endpoints of a registry: containerd's `hosts.toml` trees, read again for each pull.

A path holds one folder per registry (`host_port_`, `host:port`, `host` or `_default`), in it
`hosts.toml` or, docker style, `*.crt`, `*.cert` and `*.key`. Several paths may be joined by `:`.
Endpoints are tried in the order of the file, except after outages (`outages`); the registry itself comes
last.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from phantom_cri.codec import Record, replace
from phantom_cri.errors import FailedPrecondition

ALL_CAPABILITIES = frozenset({"pull", "resolve", "push"})
_DOCKER_HOST = "registry-1.docker.io"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Endpoint(Record, frozen=True):
    """One base URL to try. `origin`: it is the registry itself, so needs no `ns` parameter.

    `ca`, `client`: PEM files ((certificate, key), key empty if in the same file). `plain_fallback`:
    without TLS where the server has none. `dial_timeout`: seconds to connect, None if not configured.
    """

    url: str
    origin: bool = False
    capabilities: frozenset[str] = ALL_CAPABILITIES
    ca: tuple[str, ...] = ()
    client: tuple[tuple[str, str], ...] = ()
    skip_verify: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    dial_timeout: float | None = None
    plain_fallback: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether requests are sent without TLS."""
        return (self.plain_fallback or self.url.startswith("http:")) and not is_loopback(self.host)

    @property
    def host(self) -> str:
        """`host[:port]` as in the URL."""
        return urlsplit(self.url).netloc


def endpoints(domain: str, config_path: Path | str | None) -> tuple[Endpoint, ...]:
    """The endpoints of registry `domain` (`host[:port]`), in order. Reads a few small files.

    Raises FailedPrecondition naming a file that cannot be used.
    """
    folder = _folder(domain, config_path)
    if folder is None:
        return (_origin(domain),)
    file = folder / "hosts.toml"
    if not file.exists():
        return (_origin(domain, ca=_texts(folder, "*.crt"), client=_docker_pairs(folder)),)
    try:
        tree = tomllib.loads(file.read_text())
        return _from_toml(domain, tree, folder)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
        raise FailedPrecondition(f"registry configuration {file}: {error}") from None


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is this machine, for which plain HTTP is allowed."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def _folder(domain: str, config_path: Path | str | None) -> Path | None:
    host, colon, port = domain.rpartition(":") if re.search(r":\d+$", domain) else (domain, "", "")
    names = [f"{host}_{port}_", domain, host] if colon else [domain]
    for root in str(config_path or "").split(":"):
        for name in (*names, "_default"):
            if root and (candidate := Path(root) / name).is_dir():
                return candidate
    return None


def _origin(domain: str, ca: tuple[str, ...] = (), client: tuple[tuple[str, str], ...] = ()) -> Endpoint:
    host = _DOCKER_HOST if domain == "docker.io" else domain
    endpoint = Endpoint(f"https://{host}/v2", origin=True, ca=ca, client=client)
    if not is_loopback(host) or ca or client:
        return endpoint
    return replace(endpoint, skip_verify=True, plain_fallback=True)


def _from_toml(domain: str, tree: dict[str, Any], folder: Path) -> tuple[Endpoint, ...]:
    found: list[Endpoint] = []
    for url, table in _table(tree, "host").items():
        found.append(_endpoint(domain, url, table, folder))
    own = {key: value for key, value in tree.items() if key not in ("host", "server")}
    server = tree.get("server")
    if server is not None and not isinstance(server, str):
        raise ValueError(f"server = {server!r} is not text")
    if server or own:
        found.append(_endpoint(domain, server or _origin(domain).host, own, folder))
    else:
        found.append(_origin(domain))
    return tuple(found)


def _endpoint(domain: str, url: str, table: Any, folder: Path) -> Endpoint:
    if not isinstance(table, dict):
        raise ValueError(f"[host.{url!r}] is not a table")
    parts = urlsplit(url if "://" in url else f"https://{url}")
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.username is not None:
        raise ValueError(f"host {url!r} is not an http or https URL without a user")
    path = parts.path.rstrip("/")
    if not table.get("override_path") and not path.endswith("/v2"):
        path += "/v2"
    capabilities = table.get("capabilities")
    host = parts.netloc
    endpoint = Endpoint(
        url=f"{parts.scheme}://{host}{path}",
        origin=host == domain or (domain == "docker.io" and host in (_DOCKER_HOST, "docker.io")),
        capabilities=ALL_CAPABILITIES if capabilities is None else frozenset(capabilities),
        ca=tuple(str(folder / name) for name in _list(table.get("ca"), "ca")),
        client=_client_pairs(table.get("client"), folder),
        skip_verify=bool(table.get("skip_verify", False)),
        headers=tuple(
            (name, str(value))
            for name, values in _table(table, "header").items()
            for value in _list(values, name)
        ),
        dial_timeout=_duration(table["dial_timeout"]) if "dial_timeout" in table else None,
    )
    has_tls = endpoint.ca or endpoint.client or "skip_verify" in table
    if parts.scheme == "http" and has_tls and parts.port not in (None, 80):
        return replace(endpoint, url=f"https://{host}{path}", plain_fallback=True)
    return endpoint


def _client_pairs(value: Any, folder: Path) -> tuple[tuple[str, str], ...]:
    """`"both.pem"`, `["a.pem", "b.pem"]` or `[["cert", "key"], …]`."""
    pairs = []
    for item in _list(value, "client"):
        names = item if isinstance(item, list) else [item]
        if not 1 <= len(names) <= 2 or not all(isinstance(name, str) for name in names):
            raise ValueError(f"client = {item!r} is neither a file nor a pair of files")
        key = str(folder / names[1]) if len(names) == 2 and names[1] else ""
        pairs.append((str(folder / names[0]), key))
    return tuple(pairs)


def _docker_pairs(folder: Path) -> tuple[tuple[str, str], ...]:
    return tuple((cert, os.path.splitext(cert)[0] + ".key") for cert in _texts(folder, "*.cert"))


def _texts(folder: Path, pattern: str) -> tuple[str, ...]:
    return tuple(sorted(str(path) for path in folder.glob(pattern)))


def _table(tree: dict[str, Any], key: str) -> dict[str, Any]:
    value = tree.get(key, {})
    if not isinstance(value, dict):
        raise ValueError(f"{key} is not a table")
    return value


def _list(value: Any, key: str) -> list[Any]:
    if value is None:
        return []
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | list) for item in items):
        raise ValueError(f"{key} = {value!r} is not text")
    return items


def _duration(value: Any) -> float:
    """Go's notation, `1m30s`; a bare number counts seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    parts = _DURATION.findall(str(value))
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError(f"dial_timeout = {value!r} is not a duration")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)

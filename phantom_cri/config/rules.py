"""Checks of configuration values; each raises ValueError naming the key."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SUN_PATH = 107  # unix(7): sun_path holds 108 bytes with the closing zero


def seconds(text: str, key: str) -> float:
    """`1h30m` → 5400.0; units are ms, s, m, h, d; a bare `0` needs none. Raises ValueError naming `key`."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    exact = "".join(number + unit for number, unit in parts) == text
    check(text == "0" or (exact and text != ""), key, text, 'a duration such as "90s", "1h" or "1h30m"')
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def byte_count(value: int | str, key: str) -> int:
    """`16MiB` → 16777216; a bare number is bytes. Raises ValueError naming `key`."""
    if isinstance(value, int):
        check(value >= 0, key, value, "0 or more")
        return value
    match = re.fullmatch(r"(\d+) ?(|KiB|MiB|GiB|TiB)", value)
    check(match is not None, key, value, 'a size such as "16MiB" or "2GiB"')
    return int(match[1]) * _BYTES[match[2]] if match else 0


def check(holds: bool, key: str, value: object, rule: str) -> None:
    """Raises ValueError: when a record is decoded, the codec adds the path to it."""
    if not holds:
        raise ValueError(f"{key}: must be {rule}, got {value!r}")


def is_label(text: str) -> bool:
    return re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", text) is not None


def is_absolute(text: str) -> bool:
    return text.startswith("/") and "\0" not in text and ".." not in text.split("/")


def is_socket(text: str) -> bool:
    path = text.removeprefix("unix://")
    return path != text and is_absolute(path) and not path.endswith("/") and len(path.encode()) <= _SUN_PATH


def is_address(text: str) -> bool:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):(\d{1,5})", text)
    return text == "" or (match is not None and int(match[2]) <= 65535)


def is_ip_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def subnet_family(text: str, key: str) -> int:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ValueError(f"{key}: must be a range such as 10.88.0.0/16, got {text!r} ({error})") from None
    # A bridge, a pod and (IPv4) the two addresses that no host may have.
    check(network.num_addresses >= 4, key, text, "a range of 4 addresses or more")
    is_for_hosts = not (network.is_multicast or network.is_loopback)
    check(is_for_hosts, key, text, "a range that is neither multicast nor loopback")
    return network.version

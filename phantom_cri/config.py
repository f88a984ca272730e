"""What the daemon is told: one YAML file, read strictly, and the flags that win over it.

Every key is described in docs/configuration.md; a unit test compares that page with the
records below. Each record checks its own values, so the same rules hold for file and flags.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Literal

from phantom_cri import __version__, codec
from phantom_cri.codec import Record
from phantom_cri.errors import ConfigError

LogLevel = Literal["debug", "info", "warning", "error"]

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SUN_PATH = 107  # unix(7): sun_path holds 108 bytes with the closing zero
_INTERFACE_NAME = 15  # IFNAMSIZ with the closing zero is 16
_IPV6_MIN_MTU = 1280  # RFC 8200, 5


def seconds(text: str, key: str) -> float:
    """`1h30m` → 5400.0; units are ms, s, m, h, d; a bare `0` needs none. Raises ValueError naming `key`."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    exact = "".join(number + unit for number, unit in parts) == text
    _check(text == "0" or (exact and text != ""), key, text, 'a duration such as "90s", "1h" or "1h30m"')
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def byte_count(value: int | str, key: str) -> int:
    """`16MiB` → 16777216; a bare number is bytes. Raises ValueError naming `key`."""
    if isinstance(value, int):
        _check(value >= 0, key, value, "0 or more")
        return value
    match = re.fullmatch(r"(\d+) ?(|KiB|MiB|GiB|TiB)", value)
    _check(match is not None, key, value, 'a size such as "16MiB" or "2GiB"')
    return int(match[1]) * _BYTES[match[2]] if match else 0


def _check(holds: bool, key: str, value: object, rule: str) -> None:
    """ValueError is what a record may raise while it is decoded: the codec adds the path to it."""
    if not holds:
        raise ValueError(f"{key}: must be {rule}, got {value!r}")


def _is_label(text: str) -> bool:
    return re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", text) is not None


def _is_absolute(text: str) -> bool:
    return text.startswith("/") and "\0" not in text and ".." not in text.split("/")


def _is_socket(text: str) -> bool:
    path = text.removeprefix("unix://")
    return path != text and _is_absolute(path) and not path.endswith("/") and len(path.encode()) <= _SUN_PATH


def _is_address(text: str) -> bool:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):(\d{1,5})", text)
    return text == "" or (match is not None and int(match[2]) <= 65535)


def _subnet_family(text: str, key: str) -> int:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ValueError(f"{key}: must be a range such as 10.88.0.0/16, got {text!r} ({error})") from None
    # A bridge, a pod and (IPv4) the two addresses that no host may have.
    _check(network.num_addresses >= 4, key, text, "a range of 4 addresses or more")
    return network.version


class LogConfig(Record, frozen=True):
    level: LogLevel = "info"
    format: Literal["json", "text"] = "text"


class CgroupConfig(Record, frozen=True):
    driver: Literal["cgroupfs"] = "cgroupfs"
    default_parent: str = "/phantom"

    def __post_init__(self) -> None:
        parent = self.default_parent
        _check(
            parent.startswith("/") and ".." not in parent.split("/") and parent.strip("/") != "",
            "default_parent",
            parent,
            "an absolute path below the cgroup root",
        )


class PoolNamespaces(Record, frozen=True):
    """Which of the node's namespaces a pool's fragments keep instead of having their own."""

    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False


class PoolConfig(Record, frozen=True):
    """`size` warm fragments are kept for pods of this handler and these namespaces."""

    name: str
    size: int = 8
    max_age: str = "1h"
    handler: str = ""
    namespaces: PoolNamespaces = PoolNamespaces()

    def __post_init__(self) -> None:
        _check(_is_label(self.name), "name", self.name, "1 to 63 of a-z, 0-9 and -")
        _check(0 <= self.size <= 4096, "size", self.size, "between 0 and 4096")
        _check(seconds(self.max_age, "max_age") >= 1, "max_age", self.max_age, "1s or longer")
        _check(
            self.handler == "" or _is_label(self.handler),
            "handler",
            self.handler,
            "a handler's name or empty",
        )

    @property
    def max_age_seconds(self) -> float:
        return seconds(self.max_age, "max_age")


class NetworkConfig(Record, frozen=True):
    driver: Literal["bridge"] = "bridge"
    bridge: str = "phantom0"
    subnets: tuple[str, ...] = ("10.88.0.0/16", "fd70:6861:6e74::/64")
    mtu: int = 0
    masquerade: bool = True
    host_ports: bool = True

    def __post_init__(self) -> None:
        name = self.bridge
        _check(
            0 < len(name.encode()) <= _INTERFACE_NAME
            and name not in (".", "..")
            and not re.search(r"[\s/:]", name),
            "bridge",
            name,
            "an interface name of at most 15 bytes",
        )
        families = [_subnet_family(subnet, f"subnets[{index}]") for index, subnet in enumerate(self.subnets)]
        _check(
            len(families) > 0 and len(set(families)) == len(families),
            "subnets",
            list(self.subnets),
            "one range for IPv4, one for IPv6, or one of them",
        )
        lowest = _IPV6_MIN_MTU if 6 in families else 68
        _check(
            self.mtu == 0 or lowest <= self.mtu <= 65535, "mtu", self.mtu, f"0 or between {lowest} and 65535"
        )


class ImagesConfig(Record, frozen=True):
    pinned: tuple[str, ...] = ()
    max_layer_bytes: int | str = "64GiB"
    max_layer_entries: int = 4_000_000
    parallel_layers: int = 3

    def __post_init__(self) -> None:
        for index, reference in enumerate(self.pinned):
            _check(reference.strip() != "", f"pinned[{index}]", reference, "an image's name or digest")
        size = byte_count(self.max_layer_bytes, "max_layer_bytes")
        _check(size > 0, "max_layer_bytes", self.max_layer_bytes, "more than 0")
        _check(self.max_layer_entries > 0, "max_layer_entries", self.max_layer_entries, "more than 0")
        _check(1 <= self.parallel_layers <= 32, "parallel_layers", self.parallel_layers, "between 1 and 32")

    @property
    def max_layer_size(self) -> int:
        """`max_layer_bytes` as a number of bytes."""
        return byte_count(self.max_layer_bytes, "max_layer_bytes")


class PolicyConfig(Record, frozen=True):
    directory: str = ""
    default: str = "default"

    def __post_init__(self) -> None:
        _check(
            self.directory == "" or _is_absolute(self.directory),
            "directory",
            self.directory,
            "an absolute path",
        )
        _check(_is_label(self.default), "default", self.default, "the name of a policy")


class ExecConfig(Record, frozen=True):
    output_limit: int | str = "16MiB"
    drain_timeout: str = "1s"

    def __post_init__(self) -> None:
        _check(self.output_limit_bytes > 0, "output_limit", self.output_limit, "more than 0")
        seconds(self.drain_timeout, "drain_timeout")

    @property
    def output_limit_bytes(self) -> int:
        return byte_count(self.output_limit, "output_limit")

    @property
    def drain_timeout_seconds(self) -> float:
        return seconds(self.drain_timeout, "drain_timeout")


class Config(Record, frozen=True):
    """The whole configuration of one daemon. Paths are absolute."""

    listen: str = "unix:///run/phantom/cri.sock"
    root: str = "/var/lib/phantom"
    state: str = "/run/phantom"
    registry_config_path: str = "/etc/phantom/certs.d"
    metrics_address: str = "127.0.0.1:9750"
    pids_limit: int = 0
    drain_timeout: str = "10s"
    log: LogConfig = LogConfig()
    cgroup: CgroupConfig = CgroupConfig()
    pools: tuple[PoolConfig, ...] = (PoolConfig("default"),)
    network: NetworkConfig = NetworkConfig()
    images: ImagesConfig = ImagesConfig()
    policy: PolicyConfig = PolicyConfig()
    exec: ExecConfig = ExecConfig()

    def __post_init__(self) -> None:
        _check(
            _is_socket(self.listen),
            "listen",
            self.listen,
            "unix:// and an absolute path of at most 107 bytes",
        )
        _check(_is_absolute(self.root), "root", self.root, "an absolute path")
        _check(_is_absolute(self.state), "state", self.state, "an absolute path")
        _check(Path(self.root) != Path(self.state), "state", self.state, "another folder than root")
        registry = self.registry_config_path
        _check(
            registry == "" or _is_absolute(registry),
            "registry_config_path",
            registry,
            "an absolute path or empty",
        )
        _check(
            _is_address(self.metrics_address), "metrics_address", self.metrics_address, "HOST:PORT or empty"
        )
        _check(0 <= self.pids_limit <= 1 << 22, "pids_limit", self.pids_limit, "between 0 and 4194304")
        seconds(self.drain_timeout, "drain_timeout")
        self._check_pools()

    def _check_pools(self) -> None:
        names: set[str] = set()
        profiles: dict[tuple[str, PoolNamespaces], str] = {}
        for index, pool in enumerate(self.pools):
            _check(pool.name not in names, f"pools[{index}].name", pool.name, "used once")
            names.add(pool.name)
            twin = profiles.setdefault((pool.handler, pool.namespaces), pool.name)
            _check(
                twin == pool.name,
                f"pools[{index}]",
                pool.name,
                f"for another handler or other namespaces than pool {twin!r}: it would never be used",
            )

    @property
    def socket_path(self) -> str:
        """`listen` as a path."""
        return self.listen.removeprefix("unix://")

    @property
    def drain_timeout_seconds(self) -> float:
        return seconds(self.drain_timeout, "drain_timeout")


def load(argv: Sequence[str]) -> Config:
    """The configuration that the daemon's arguments (without the program's name) ask for.

    Raises ConfigError naming key or flag; leaves with SystemExit for --help, --version and unknown flags.
    """
    flags = {key: value for key, value in vars(_parser().parse_args(argv)).items() if value is not None}
    path = flags.pop("config", "")
    config = read(path) if path else Config()
    level = flags.pop("log_level", config.log.level)
    try:
        return codec.replace(config, log=codec.replace(config.log, level=level), **flags)
    except ValueError as error:
        raise ConfigError(f"config: {error}") from None


def read(path: str) -> Config:
    """Read and check a configuration file; an empty one gives the defaults. Raises ConfigError."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"config: cannot read {path}: {error.strerror}") from None
    return parse(text, path)


def parse(text: bytes | str, origin: str = "") -> Config:
    """Check a configuration's text; `origin` is only named in errors. Raises ConfigError."""
    where = f" (in {origin})" if origin else ""
    try:
        document = codec.from_yaml(text, object)
        if document is None:  # nothing but comments
            return Config()
        return codec.convert(document, Config)
    except codec.DecodeError as error:
        raise ConfigError(f"config: {_name_key(str(error))}{where}") from None


def _name_key(message: str) -> str:
    """Put msgspec's "… - at `$.pools[0]`" in front, where a person looks for the key."""
    problem, _, path = " ".join(message.split()).partition(" - at `$")
    path = path.rstrip("`").removeprefix(".")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", problem)
    if unknown:
        return f"unknown key {_join(path, unknown[1])}"
    missing = re.fullmatch(r"Object missing required field `(.*)`", problem)
    if missing:
        return f"missing key {_join(path, missing[1])}"
    refused = re.match(r"([a-z_]+(?:\[\d+\])?(?:\.[a-z_]+)?)(: must be .*)", problem)
    if refused:
        return _join(path, refused[1]) + refused[2]
    return f"{path}: {problem}" if path else problem


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="phantom-cri",
        description="Phantom Fragment, a Kubernetes node runtime (CRI v1): starts pods on warm fragments.",
        epilog="A flag wins over the file. Several daemons run side by side when listen, root, state, "
        "metrics_address, cgroup.default_parent, network.bridge and network.subnets differ.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file; every key is described in docs/configuration.md"
    )
    parser.add_argument(
        "--listen", metavar="unix://PATH", help=f"where to serve CRI (default {Config().listen})"
    )
    parser.add_argument(
        "--root", metavar="DIR", help=f"images and all that survives a reboot (default {Config().root})"
    )
    parser.add_argument(
        "--state", metavar="DIR", help=f"what runs now; on a tmpfs (default {Config().state})"
    )
    parser.add_argument(
        "--registry-config-path",
        metavar="DIR",
        help=f"tree of hosts.toml files, as containerd reads it (default {Config().registry_config_path})",
    )
    parser.add_argument(
        "--metrics-address",
        metavar="HOST:PORT",
        help=f'where to serve Prometheus metrics; "" for nowhere (default {Config().metrics_address})',
    )
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        help=f"the least severe line to log (default {Config().log.level})",
    )
    parser.add_argument("--version", action="version", version=f"phantom-cri {__version__}")
    return parser

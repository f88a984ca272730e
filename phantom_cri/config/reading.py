"""Reads the daemon's arguments and its YAML file into a checked configuration."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from phantom_cri import __version__, codec
from phantom_cri.config.records import Config
from phantom_cri.errors import ConfigError


def load(argv: Sequence[str]) -> Config:
    """The configuration from the daemon's arguments (without the program's name) and its file.

    Raises ConfigError naming key or flag, SystemExit for --help, --version and unknown flags.
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
    """Parse and check a configuration; `origin` is only used in errors. Raises ConfigError."""
    where = f" (in {origin})" if origin else ""
    try:
        document = codec.from_yaml(text, object)
        if document is None:  # empty, or only comments
            return Config()
        return codec.convert(document, Config)
    except codec.DecodeError as error:
        raise ConfigError(f"config: {_name_key(str(error))}{where}") from None


def _name_key(message: str) -> str:
    """Put msgspec's "… - at `$.pools[0]`" in front, where users look for the key."""
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
        epilog="A flag overrides the file. Several daemons run side by side when listen, root, state, "
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

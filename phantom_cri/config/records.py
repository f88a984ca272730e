"""The configuration's records. Each checks its own values, so the same rules hold for file and flags.

Every key is described in docs/configuration.md; a unit test compares that page with these records.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from phantom_cri.codec import Record
from phantom_cri.config.handlers import DEFAULT_HANDLERS, HandlerConfig, PoolConfig, PoolNamespaces
from phantom_cri.config.network import NetworkConfig
from phantom_cri.config.rules import (
    byte_count,
    check,
    is_absolute,
    is_address,
    is_ip_address,
    is_label,
    is_socket,
    seconds,
)

LogLevel = Literal["debug", "info", "warning", "error"]


class LogConfig(Record, frozen=True):
    level: LogLevel = "info"
    format: Literal["json", "text"] = "text"


class CgroupConfig(Record, frozen=True):
    driver: Literal["cgroupfs", "systemd"] = "cgroupfs"
    default_parent: str = "/phantom"

    def __post_init__(self) -> None:
        parent = self.default_parent
        check(
            parent.startswith("/") and ".." not in parent.split("/") and parent.strip("/") != "",
            "default_parent",
            parent,
            "an absolute path below the cgroup root",
        )
        check(
            self.driver == "cgroupfs"
            or re.fullmatch(r"/[A-Za-z0-9:_.]+(-[A-Za-z0-9:_.]+)*", parent) is not None,
            "default_parent",
            parent,
            "the name of a slice after one slash, as cgroup.driver is systemd",
        )

    @property
    def parent(self) -> str:
        """`default_parent` as the cgroup driver spells it: with systemd it is a slice."""
        is_slice = self.driver == "cgroupfs" or self.default_parent.endswith(".slice")
        return self.default_parent if is_slice else f"{self.default_parent}.slice"


class CdiConfig(Record, frozen=True):
    """`spec_dirs`: folders of device descriptions, highest priority last."""

    spec_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")

    def __post_init__(self) -> None:
        for folder in self.spec_dirs:
            check(is_absolute(folder), "spec_dirs", folder, "absolute paths")


class ImagesConfig(Record, frozen=True):
    pinned: tuple[str, ...] = ()
    max_layer_bytes: int | str = "64GiB"
    max_layer_entries: int = 4_000_000
    parallel_layers: int = 3
    pull_progress_timeout: str = "5m"

    def __post_init__(self) -> None:
        for index, reference in enumerate(self.pinned):
            check(reference.strip() != "", f"pinned[{index}]", reference, "an image's name or digest")
        size = byte_count(self.max_layer_bytes, "max_layer_bytes")
        check(size > 0, "max_layer_bytes", self.max_layer_bytes, "more than 0")
        check(self.max_layer_entries > 0, "max_layer_entries", self.max_layer_entries, "more than 0")
        check(1 <= self.parallel_layers <= 32, "parallel_layers", self.parallel_layers, "between 1 and 32")
        seconds(self.pull_progress_timeout, "pull_progress_timeout")

    @property
    def pull_progress_timeout_seconds(self) -> float:
        return seconds(self.pull_progress_timeout, "pull_progress_timeout")

    @property
    def max_layer_size(self) -> int:
        """`max_layer_bytes` as a number of bytes."""
        return byte_count(self.max_layer_bytes, "max_layer_bytes")


class PolicyConfig(Record, frozen=True):
    directory: str = ""
    default: str = "default"

    def __post_init__(self) -> None:
        check(
            self.directory == "" or is_absolute(self.directory),
            "directory",
            self.directory,
            "an absolute path",
        )
        check(is_label(self.default), "default", self.default, "the name of a policy")


class ExecConfig(Record, frozen=True):
    output_limit: int | str = "16MiB"
    drain_timeout: str = "1s"

    def __post_init__(self) -> None:
        check(self.output_limit_bytes > 0, "output_limit", self.output_limit, "more than 0")
        seconds(self.drain_timeout, "drain_timeout")

    @property
    def output_limit_bytes(self) -> int:
        return byte_count(self.output_limit, "output_limit")

    @property
    def drain_timeout_seconds(self) -> float:
        return seconds(self.drain_timeout, "drain_timeout")


class StreamingConfig(Record, frozen=True):
    address: str = "127.0.0.1"
    port: int = 0
    tls_cert_file: str = ""
    tls_key_file: str = ""
    idle_timeout: str = "4h"
    creation_timeout: str = "30s"

    def __post_init__(self) -> None:
        check(is_ip_address(self.address), "address", self.address, "an IP address of this node")
        check(0 <= self.port <= 65535, "port", self.port, "between 0 and 65535")
        for key in ("tls_cert_file", "tls_key_file"):
            path = getattr(self, key)
            check(path == "" or is_absolute(path), key, path, "an absolute path or empty")
        check(
            (self.tls_cert_file == "") == (self.tls_key_file == ""),
            "tls_key_file",
            self.tls_key_file,
            "given if and only if tls_cert_file is",
        )
        for key in ("idle_timeout", "creation_timeout"):
            check(seconds(getattr(self, key), key) >= 1, key, getattr(self, key), "1s or longer")

    @property
    def tls(self) -> tuple[str, str] | None:
        """Certificate and key; None for unencrypted connections."""
        return (self.tls_cert_file, self.tls_key_file) if self.tls_cert_file else None

    @property
    def idle_timeout_seconds(self) -> float:
        return seconds(self.idle_timeout, "idle_timeout")

    @property
    def creation_timeout_seconds(self) -> float:
        return seconds(self.creation_timeout, "creation_timeout")


class CheckpointConfig(Record, frozen=True):
    criu: str = "criu"

    def __post_init__(self) -> None:
        is_name = self.criu != "" and "/" not in self.criu
        check(is_name or is_absolute(self.criu), "criu", self.criu, "a program's name or absolute path")


class ShimConfig(Record, frozen=True):
    """`socket`: where containerd's shim command finds this daemon; "": shim.sock beside the CRI socket."""

    enabled: bool = True
    socket: str = ""
    pool_size: int = 8

    def __post_init__(self) -> None:
        longest = "an absolute path of at most 101 bytes, or empty"  # .ttrpc is put behind it
        fits = is_absolute(self.socket) and len(self.socket.encode()) <= 101
        check(self.socket == "" or fits, "socket", self.socket, longest)
        check(0 <= self.pool_size <= 1024, "pool_size", self.pool_size, "between 0 and 1024")


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
    handlers: tuple[HandlerConfig, ...] = DEFAULT_HANDLERS
    pools: tuple[PoolConfig, ...] = (PoolConfig("default"),)
    network: NetworkConfig = NetworkConfig()
    images: ImagesConfig = ImagesConfig()
    policy: PolicyConfig = PolicyConfig()
    exec: ExecConfig = ExecConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    cdi: CdiConfig = CdiConfig()
    streaming: StreamingConfig = StreamingConfig()
    shim: ShimConfig = ShimConfig()

    def __post_init__(self) -> None:
        check(
            is_socket(self.listen),
            "listen",
            self.listen,
            "unix:// and an absolute path of at most 107 bytes",
        )
        check(is_absolute(self.root), "root", self.root, "an absolute path")
        check(is_absolute(self.state), "state", self.state, "an absolute path")
        check(Path(self.root) != Path(self.state), "state", self.state, "another folder than root")
        registry = self.registry_config_path
        check(
            registry == "" or is_absolute(registry),
            "registry_config_path",
            registry,
            "an absolute path or empty",
        )
        check(is_address(self.metrics_address), "metrics_address", self.metrics_address, "HOST:PORT or empty")
        check(0 <= self.pids_limit <= 1 << 22, "pids_limit", self.pids_limit, "between 0 and 4194304")
        seconds(self.drain_timeout, "drain_timeout")
        _check_unique("handlers", [handler.name for handler in self.handlers])
        _check_unique("pools", [pool.name for pool in self.pools])
        self._check_pools_are_used()

    def handlers_by_name(self) -> dict[str, HandlerConfig]:
        """The handlers of the file, and the default ones, which always exist."""
        return {handler.name: handler for handler in (*DEFAULT_HANDLERS, *self.handlers)}

    def pools_of(self, handler: HandlerConfig) -> tuple[PoolConfig, ...]:
        """The pools of a handler, in order: the first one that fits a pod's namespaces is used."""
        if not handler.pools:
            return self.pools
        by_name = {pool.name: pool for pool in self.pools}
        return tuple(by_name[name] for name in handler.pools)

    def _check_pools_are_used(self) -> None:
        names, used = {pool.name for pool in self.pools}, set()
        for index, handler in enumerate(self.handlers):
            for name in handler.pools:
                check(name in names, f"handlers[{index}].pools", name, "the name of a pool in pools")
        for handler in self.handlers_by_name().values():
            first: dict[PoolNamespaces, str] = {}
            for pool in self.pools_of(handler):
                used.add(first.setdefault(pool.namespaces, pool.name))
        for index, pool in enumerate(self.pools):
            wanted = "named by a handler, or the only one with its namespaces: it would never be used"
            check(pool.name in used, f"pools[{index}]", pool.name, wanted)

    @property
    def socket_path(self) -> str:
        """`listen` as a path."""
        return self.listen.removeprefix("unix://")

    @property
    def shim_socket(self) -> Path:
        return Path(self.shim.socket or Path(self.socket_path).with_name("shim.sock"))

    @property
    def drain_timeout_seconds(self) -> float:
        return seconds(self.drain_timeout, "drain_timeout")


def _check_unique(key: str, names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        check(name not in names[:index], f"{key}[{index}].name", name, "used once")

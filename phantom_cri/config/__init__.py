"""The daemon's configuration: one YAML file, read strictly, and flags that override it."""

from phantom_cri.config.handlers import HandlerConfig, PoolConfig, PoolNamespaces
from phantom_cri.config.network import CniConfig, NetworkConfig, Prewire
from phantom_cri.config.reading import load, parse, read
from phantom_cri.config.records import CgroupConfig, Config, StreamingConfig
from phantom_cri.config.rules import byte_count, seconds

__all__ = [
    "CgroupConfig",
    "CniConfig",
    "Config",
    "HandlerConfig",
    "NetworkConfig",
    "PoolConfig",
    "PoolNamespaces",
    "Prewire",
    "StreamingConfig",
    "byte_count",
    "load",
    "parse",
    "read",
    "seconds",
]

"""The pods' network: checked here, and passed to the driver unchanged."""

from __future__ import annotations

import re
from typing import Literal

from phantom_cri.codec import Record
from phantom_cri.config.rules import check, is_absolute, seconds, subnet_family

Prewire = Literal["auto", "always", "never"]

_BRIDGE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")  # IFNAMSIZ; part of a name in nftables too
_MTU_MIN = 1280  # RFC 8200, 5: the minimum for IPv6 on an interface


class CniConfig(Record, frozen=True):
    conf_dir: str = "/etc/cni/net.d"
    bin_dirs: tuple[str, ...] = ("/opt/cni/bin", "/usr/lib/cni")
    cache_dir: str = ""
    prewire: Prewire = "auto"
    timeout: str = "60s"

    def __post_init__(self) -> None:
        check(is_absolute(self.conf_dir), "conf_dir", self.conf_dir, "an absolute path")
        check(len(self.bin_dirs) > 0, "bin_dirs", list(self.bin_dirs), "one folder or more")
        for index, folder in enumerate(self.bin_dirs):
            fits = is_absolute(folder) and ":" not in folder  # CNI_PATH is a colon-separated list
            check(fits, f"bin_dirs[{index}]", folder, "an absolute path without colons")
        cache = self.cache_dir
        check(cache == "" or is_absolute(cache), "cache_dir", cache, "an absolute path or empty")
        check(seconds(self.timeout, "timeout") >= 1, "timeout", self.timeout, "1s or longer")

    @property
    def timeout_seconds(self) -> float:
        return seconds(self.timeout, "timeout")


class NetworkConfig(Record, frozen=True):
    """The first of `subnets` gives a pod's primary address; the first address of each is the gateway."""

    driver: Literal["bridge", "cni"] = "bridge"
    bridge: str = "phantom0"
    subnets: tuple[str, ...] = ("10.88.0.0/16", "fd70:6861:6e74::/64")
    mtu: int = 0
    masquerade: bool = True
    host_ports: bool = True
    cni: CniConfig = CniConfig()

    def __post_init__(self) -> None:
        fits = _BRIDGE.fullmatch(self.bridge) is not None
        check(fits, "bridge", self.bridge, "a letter and at most 14 of A-Z, a-z, 0-9, _, . and -")
        families = [subnet_family(subnet, f"subnets[{index}]") for index, subnet in enumerate(self.subnets)]
        check(
            len(families) > 0 and len(set(families)) == len(families),
            "subnets",
            list(self.subnets),
            "one range for IPv4, one for IPv6, or one of them",
        )
        fits = self.mtu == 0 or _MTU_MIN <= self.mtu <= 65535
        check(fits, "mtu", self.mtu, f"0 or between {_MTU_MIN} and 65535")

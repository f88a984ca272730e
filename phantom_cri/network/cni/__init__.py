"""The CNI driver: pods on whatever network the administrator's plugins make (CNI spec 1.1.0)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from phantom_cri.codec import Record

Prewire = Literal["auto", "always", "never"]


class CniConfig(Record, frozen=True):
    """The CNI driver's settings.

    conf_dir: the first *.conf, *.conflist or *.json in it, by name, is the network; bin_dirs: where plugins
    are looked for, in order; cache_dir: what was asked of them, to be kept over a reboot.
    prewire: whether namespaces are attached before their pod is known: "auto" where no plugin can tell.
    timeout_s: seconds that one call of one plugin may take.
    """

    cache_dir: Path
    conf_dir: Path = Path("/etc/cni/net.d")
    bin_dirs: tuple[Path, ...] = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
    prewire: Prewire = "auto"
    timeout_s: float = 60.0

"""What the shim uses of the daemon that it is part of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from phantom_cri.cgroups import Cgroups, LaunchFds
from phantom_cri.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Node:
    """`state`: a folder of the shim's own, for what runs now. address: what its launcher tells containerd.

    pool_size: fragments kept warm for each kind of network.
    """

    state: Path
    address: str
    cgroups: Cgroups
    host_mounts: int  # fd of the mount namespace that host paths are meant in
    fragments_cgroup: LaunchFds
    metrics: Metrics
    version: str
    pool_size: int

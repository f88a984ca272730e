"""cgroups v1, v2 and hybrid behind one interface, created by us or by systemd.

`detect()` and `detect_systemd()` return the node's `Cgroups`.
"""

from __future__ import annotations

from phantom_cri.cgroups.base import ABSENT, Cgroups, CgroupStatistics, LaunchFds
from phantom_cri.cgroups.detect import detect, detect_systemd
from phantom_cri.cgroups.devices import DEFAULT_RULES, DeviceRule
from phantom_cri.cgroups.open_files import open_files_limit
from phantom_cri.cgroups.paths import DEFAULT_PARENT, pod_path

__all__ = [
    "ABSENT",
    "DEFAULT_PARENT",
    "DEFAULT_RULES",
    "CgroupStatistics",
    "Cgroups",
    "DeviceRule",
    "LaunchFds",
    "detect",
    "detect_systemd",
    "open_files_limit",
    "pod_path",
]

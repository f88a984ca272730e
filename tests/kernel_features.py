"""Kernel features that tests can ask for with `@pytest.mark.kernel("name")`, as this host has them."""

from __future__ import annotations

import errno
import functools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path


def _cgroup_v2() -> bool:
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def _cgroup_v1() -> bool:
    return any(" - cgroup cgroup " in line for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _systemd() -> bool:
    return Path("/run/systemd/system").is_dir()  # sd_booted(3)


def _loop_devices() -> bool:
    return Path("/dev/loop-control").exists()


def _overlayfs() -> bool:
    return "\toverlay" in Path("/proc/filesystems").read_text()


def _ipv6() -> bool:
    return Path("/proc/sys/net/ipv6/conf").exists()


def _nftables() -> bool:
    """Whether the kernel takes an nftables table; `--check` asks it without making one."""
    command = ["nft", "--check", "add table inet phantom_probe"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _user_namespaces() -> bool:
    limit = Path("/proc/sys/user/max_user_namespaces")
    return limit.exists() and int(limit.read_text()) > 0


def _capability_sys_resource() -> bool:
    """CAP_SYS_RESOURCE is bit 24 (capabilities(7)); without it no process lowers an oom_score_adj."""
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) & (1 << 24))


def _apparmor() -> bool:
    enabled = Path("/sys/module/apparmor/parameters/enabled")
    return enabled.exists() and enabled.read_text().strip() == "Y"


def _selinux() -> bool:
    """With a policy: before one is loaded every process is "kernel"."""
    own = Path("/proc/self/attr/current")
    return Path("/sys/fs/selinux/enforce").exists() and own.read_text().strip("\0\n") != "kernel"


def _pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return error.errno != errno.ENOSYS
    return True


PROBES: dict[str, Callable[[], bool]] = {
    "apparmor": _apparmor,
    "cap_sys_resource": _capability_sys_resource,
    "cgroup_v1": _cgroup_v1,
    "cgroup_v2": _cgroup_v2,
    "ipv6": _ipv6,
    "loop_devices": _loop_devices,
    "nftables": _nftables,
    "overlayfs": _overlayfs,
    "pidfd": _pidfd,
    "selinux": _selinux,
    "systemd": _systemd,
    "user_namespaces": _user_namespaces,
}


@functools.cache
def missing(feature: str) -> str:
    """Why a test that needs `feature` cannot run here; empty when it can. KeyError for an unknown name."""
    return "" if PROBES[feature]() else f"no {feature} on this host"

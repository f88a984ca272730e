"""Simulates a reboot for one daemon: removes what a reboot would remove."""

from __future__ import annotations

import contextlib
import shutil
import subprocess

from harness.cgroups import remove_cgroups
from harness.daemon import Daemon
from harness.host import kill_below, unmount_below


def go_down(daemon: Daemon) -> None:
    """Kills the daemon and all of its pods, and removes what is only in memory: STATE, cgroups, network."""
    daemon.kill()
    kill_below(daemon.state)
    unmount_below(daemon.state)
    remove_cgroups(daemon.cgroup)
    subprocess.run(["ip", "link", "delete", daemon.bridge], stderr=subprocess.DEVNULL, check=False)
    table = f"phantom_{daemon.bridge}"
    subprocess.run(["nft", "delete", "table", "inet", table], stderr=subprocess.DEVNULL, check=False)
    with contextlib.suppress(FileNotFoundError):  # the daemon had just started
        shutil.rmtree(daemon.state)

"""A root directory with busybox, for plans made by hand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

BUSYBOX = Path("/usr/bin/busybox")
APPLETS = (
    "cat dd echo env false head hostname id ls mkdir mknod mount ps pwd readlink rm sed seq setsid sh "
    "sleep stat stty touch true tty umask umount wc yes"
)


def make_rootfs(root: Path) -> Path:
    """Makes `root` with bin/busybox, its libraries and a link for each applet."""
    listed = subprocess.run(["ldd", str(BUSYBOX)], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"(/\S+)", listed):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    (root / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for applet in APPLETS.split():
        os.link(root / "bin/busybox", root / "bin" / applet)
    return root

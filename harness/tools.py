"""The pinned real tools (crictl, containerd, runc, crun …), built on first use by tests/tools/install."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INSTALLER = ROOT / "tests" / "tools" / "install"


@functools.cache
def tool(name: str) -> Path:
    """The path of tool `name`; builds it if it is not cached yet (minutes for a Go tool)."""
    done = subprocess.run([INSTALLER, name], stdout=subprocess.PIPE, text=True, check=True)
    line = done.stdout.strip().splitlines()[-1]
    path = Path(line.partition("\t")[2])
    if not path.is_file():
        raise FileNotFoundError(f"{INSTALLER} {name} printed {line!r}")
    return path

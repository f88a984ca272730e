"""What lies in a task's bundle beside what containerd puts there."""

from __future__ import annotations

import os

from phantom_cri import codec
from phantom_cri.model import ProcessRef

INIT_FILE = "phantom.init"
"""The first process, for the launcher's `delete` when no daemon is there (shim/launcher.c)."""


def note_init(bundle: str, process: ProcessRef | None) -> None:
    """Raises OSError."""
    if process is not None:
        text = f"{process.pid} {process.start_time}\n".encode()
        codec.write_atomically(os.path.join(bundle, INIT_FILE), text)


def read_config(bundle: str) -> bytes:
    """Raises OSError."""
    with open(os.path.join(bundle, "config.json"), "rb") as file:
        return file.read()

"""A container's log file: its path, and opening it. The fragment writes it, in CRI's format."""

from __future__ import annotations

import os

from phantom_cri.errors import InvalidArgument, kernel_error
from phantom_cri.lifecycle.live import Pod
from phantom_cri.model import ContainerConfig


def log_path(pod: Pod, config: ContainerConfig) -> str:
    """Absolute path of the log file, "" for none. The name must stay below the pod's log directory."""
    folder = pod.record.config.log_directory
    if not folder or not config.log_path:
        return ""
    path = os.path.normpath(os.path.join(folder, config.log_path))
    if not path.startswith(os.path.normpath(folder) + "/"):
        raise InvalidArgument(f"config.log_path: {config.log_path!r} leaves log_directory {folder!r}")
    return path


def open_log(path: str) -> int:
    """Open or create a log file for appending; its folder is created, as in CRI-O.

    Raises Internal, ResourceExhausted.
    """
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(path, flags, 0o640)
    except OSError as error:
        raise kernel_error(f"log_path {path}", error.errno or 0) from error

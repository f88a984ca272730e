"""One daemon per root and per state directory: a second one fails, naming the first one's pid."""

from __future__ import annotations

import fcntl
import os

from phantom_cri.errors import FailedPrecondition


class Ownership:
    """Holds `DIR/daemon.lock` of each directory with flock(2) until the process ends, however it ends."""

    def __init__(self, *folders: str) -> None:
        self._fds: list[int] = []
        try:
            for folder in folders:
                os.makedirs(folder, mode=0o711, exist_ok=True)
                self._fds.append(_lock(os.path.join(folder, "daemon.lock"), folder))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


def _lock(path: str, folder: str) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise FailedPrecondition(f"{folder} is in use by another phantom-cri, pid {holder}") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd

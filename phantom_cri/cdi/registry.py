"""The devices described by this node's CDI files, which are read again when a file changes."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import NamedTuple

from phantom_cri.cdi.document import Described, Document, check
from phantom_cri.cdi.edits import merged
from phantom_cri.codec import DecodeError, from_json, from_yaml
from phantom_cri.errors import SHORTAGES, FailedPrecondition, kernel_error
from phantom_cri.model import Injection

log = logging.getLogger("phantom_cri.cdi")

_LARGEST = 16 << 20


class _Stamp(NamedTuple):
    """Identifies one version of a file under its path."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class Registry:
    """`folders`: where the files are, lowest priority first (the specification's /etc/cdi, /var/run/cdi).

    An invalid file only disables its own devices; the reason is logged, and returned to requests for them.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = tuple(folders)
        self._stamps: dict[str, _Stamp] = {}
        self._documents: dict[str, Document] = {}
        self._wrong: dict[str, str] = {}  # path → why it is invalid
        self._devices: dict[str, Described] = {}
        self._lock = Lock()

    def injection(self, names: Sequence[str]) -> Injection:
        """What the devices add to a container. Reads from disk; may be called from any thread.

        Raises FailedPrecondition naming devices that no file (or more than one) describes, or that this node
        lacks; Unimplemented naming an unsupported edit of a file; ResourceExhausted.
        """
        with self._lock:
            self._refresh()
            found = {name: self._devices.get(name) for name in names}
            broken = "".join(f"; {path}: {why}" for path, why in sorted(self._wrong.items()))
        missing = [name for name, device in found.items() if device is None]
        if missing:
            raise FailedPrecondition(
                f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}{broken}"
            )
        return merged([device for device in found.values() if device is not None])

    def _refresh(self) -> None:
        stamps = dict(self._files())
        for path in self._wrong.keys() - stamps.keys():
            del self._wrong[path]
        if stamps == self._stamps:
            return
        for path in self._documents.keys() - stamps.keys():
            del self._documents[path]
        for path, stamp in list(stamps.items()):
            if self._stamps.get(path) != stamp and not self._read(path):
                del stamps[path]  # it may become readable without a change of its stamp
        self._stamps = stamps
        self._devices = self._resolved()

    def _files(self) -> Iterator[tuple[str, _Stamp]]:
        for folder in self._folders:
            try:
                names = sorted(os.listdir(folder))
            except OSError as error:
                _check_shortage(folder, error)
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    log.warning("CDI folder %s cannot be read: %s", folder, error.strerror)
                continue
            for name in names:
                if name.endswith((".json", ".yaml")):
                    path = f"{folder}/{name}"
                    try:
                        status = os.stat(path)
                    except OSError:  # removed meanwhile, or a dangling link
                        continue
                    if not stat.S_ISDIR(status.st_mode):
                        yield (
                            path,
                            _Stamp(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns),
                        )

    def _read(self, path: str) -> bool:
        """Whether the file could be read, whether or not it is valid."""
        self._documents.pop(path, None)
        self._wrong.pop(path, None)
        try:
            content = _content(path)
            document = (
                from_json(content, Document) if path.endswith(".json") else from_yaml(content, Document)
            )
            check(document)
        except (OSError, DecodeError, ValueError) as error:  # ValueError: also for invalid YAML
            _check_shortage(path, error)
            self._wrong[path] = " ".join(str(error).split())
            log.warning("CDI file %s is ignored: %s", path, self._wrong[path])
            return not isinstance(error, OSError)
        self._documents[path] = document
        return True

    def _resolved(self) -> dict[str, Described]:
        """A later folder wins; a device that two files of one folder describe is not used."""
        devices: dict[str, Described] = {}
        for folder in self._folders:
            here: dict[str, Described] = {}
            twice = set()
            for path, document in self._documents.items():
                if os.path.dirname(path) != folder:
                    continue
                for device in document.devices:
                    name = f"{document.kind}={device.name}"
                    if name in here:
                        twice.add(name)
                    here[name] = Described(path, document, device)
            devices |= here
            for name in twice:
                log.warning("CDI device %s is described twice in %s, so it is not used", name, folder)
                del devices[name]
        return devices


def _check_shortage(path: str, error: Exception) -> None:
    """Raise ResourceExhausted if `error` is not the file's fault but a shortage in this process."""
    if isinstance(error, OSError) and error.errno in SHORTAGES:
        raise kernel_error(f"CDI device injection failed: read {path}", error.errno or 0) from error


def _content(path: str) -> bytes:
    """A regular file of reasonable size; ValueError, OSError. Does not block on a FIFO."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("not a regular file")
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"larger than {_LARGEST} bytes")
    return content

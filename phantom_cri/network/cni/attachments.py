"""Attachments on disk, with the requests to plugins: so that they can be deleted after a crash, and after a
change of the configuration (CNI spec, section 3, "Adding an attachment").
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phantom_cri import codec, errors, native

log = logging.getLogger(__name__)

_SUFFIX = ".json"
_HALF = ".tmp"  # a temporary file of `write_atomically`


class Attachment(codec.Stored, frozen=True):
    """One sandbox on one network; written before the first plugin is called.

    network: the whole configuration, as in `conflist.Network.document`; version: the one used with plugins;
    args: CNI_ARGS; capabilities: all by name, of which each plugin gets those it declares; results: of each
    plugin's ADD, in order; empty until all have succeeded.
    netns: the namespace's path; netns_id: its inode, since a path below /proc can be reused; boot_id: the
    boot of both, since inodes are reused after a reboot. "": not known.
    """

    sandbox_id: str
    netns: str
    netns_id: int
    network: dict[str, Any]
    origin: str
    version: str
    args: str
    capabilities: dict[str, Any] = {}
    results: tuple[dict[str, Any], ...] = ()
    ips: tuple[str, ...] = ()
    boot_id: str = ""


class Cache:
    """One file for each attachment. Survives a reboot, as the files of plugins do."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.newer: dict[str, str] = {}  # sandbox id → its record's newer schema
        self.boot_id = native.boot_id()

    def read(self) -> Iterator[Attachment]:
        """All attachments except those in `newer`; removes temporary files of a crash. Raises Internal."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in sorted(self._folder.iterdir()):
                try:
                    attachment = _read(path)
                except codec.NewerSchema as error:
                    log.error("%s is ignored and not changed: %s", path, error)
                    self.newer[path.stem] = str(error)
                    continue
                if attachment is not None:
                    yield attachment
        except OSError as error:
            raise errors.Internal(f"network: read attachments: {error}") from error

    def write(self, attachment: Attachment) -> None:
        """Raises Internal, ResourceExhausted."""
        try:
            codec.write_atomically(self._path(attachment.sandbox_id), codec.to_json(attachment))
        except OSError as error:
            what = f"network: write attachment of sandbox {attachment.sandbox_id}"
            raise errors.kernel_error(what, error.errno or 0) from error

    def erase(self, sandbox_id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(sandbox_id))

    def _path(self, sandbox_id: str) -> str:
        return f"{self._folder}/{sandbox_id}{_SUFFIX}"


def _read(path: Path) -> Attachment | None:
    if path.suffix != _SUFFIX:
        if path.suffix == _HALF:
            path.unlink()
        return None
    try:
        return codec.from_stored(path.read_bytes(), Attachment)
    except (codec.DecodeError, RecursionError) as error:
        log.error("%s cannot be read, resources of its plugins may leak: %s", path, error)
        path.rename(path.with_suffix(".unreadable"))
        return None

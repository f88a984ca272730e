"""What was asked of which plugins, on disk: so that it can be undone after a crash, and whatever becomes of
the configuration meanwhile (CNI spec, section 3, "Adding an attachment").
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
_HALF = ".tmp"  # what `write_atomically` had not renamed yet


class Attachment(codec.Stored, frozen=True):
    """One sandbox on one network; written before the first plugin is called.

    network: the whole configuration, as `conflist.Network.document` gives it; version: the one that plugins
    were spoken to in; args: CNI_ARGS; capabilities: by name, before each plugin gets those it declares;
    results: what each plugin answered to ADD, in their order; none until all have.
    netns: the namespace's path; netns_id: its inode, since a path below /proc is another process's one day;
    boot_id: the boot that both are of, since the next one gives the same numbers to others. "": not known.
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
    """One file for each attachment. Survives a reboot, as what plugins keep on disk does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.newer: dict[str, str] = {}  # sandboxes whose record has a newer schema, and which
        self.boot_id = native.boot_id()

    def read(self) -> Iterator[Attachment]:
        """All attachments but those in `newer`; leftovers of a crash are removed. Raises Internal."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in sorted(self._folder.iterdir()):
                try:
                    attachment = _read(path)
                except codec.NewerSchema as error:
                    log.error("%s is left as it is: %s", path, error)
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
        log.error("%s cannot be read, its plugins' resources may be left behind: %s", path, error)
        path.rename(path.with_suffix(".unreadable"))
        return None

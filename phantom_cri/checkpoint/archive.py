"""The checkpoint archive that checkpointctl, CRI-O and containerd read and write.

Names: github.com/checkpoint-restore/checkpointctl, package metadata.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from phantom_cri import codec
from phantom_cri.checkpoint.criu import LOG
from phantom_cri.errors import kernel_error

IMAGES = "checkpoint"
ROOTFS_DIFF = "rootfs-diff.tar"
_BESIDE = (LOG, "stats-dump")
"""CRIU's files that are not images."""


def write_archive(location: str, folder: Path, documents: Mapping[str, object], log: str) -> None:
    """Write one tar at `location` atomically, readable by root only.

    `folder` holds `checkpoint/` and `rootfs-diff.tar`; `documents` become JSON files; `log` is the path of
    the container's log, "" for none. Errors name `location`.
    """
    where = os.path.dirname(location)
    try:
        descriptor, part = tempfile.mkstemp(dir=where, prefix=f".{os.path.basename(location)}.")
    except OSError as error:
        raise kernel_error(f"location: make a file in {where}", error.errno or 0) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                _fill(archive, folder, documents, log)
            os.fsync(file.fileno())
        os.rename(part, location)
    except OSError as error:
        os.unlink(part)
        raise kernel_error(f"location: write {location}", error.errno or 0) from error
    except BaseException:
        os.unlink(part)
        raise


def _fill(archive: tarfile.TarFile, folder: Path, documents: Mapping[str, object], log: str) -> None:
    for name, document in documents.items():
        _add_bytes(archive, name, codec.to_json(document))
    for name in sorted(os.listdir(folder / IMAGES)):
        beside = name in _BESIDE
        archive.add(folder / IMAGES / name, name if beside else f"{IMAGES}/{name}", recursive=False)
    archive.add(folder / ROOTFS_DIFF, ROOTFS_DIFF)
    if log and os.path.isfile(log):
        archive.add(log, "container.log")


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o600
    archive.addfile(entry, BytesIO(content))

"""SELinux labels of images' files and of volumes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from phantom_cri import requests
from phantom_cri.errors import PhantomError, kernel_error
from phantom_cri.lifecycle.runtime import Runtime, log
from phantom_cri.model import ContainerRecord, SelinuxLabels
from phantom_cri.policy import selinux_files


async def label_layers(runtime: Runtime) -> None:
    """Label files of images; new files inherit their folder's label. A mount's label overrides them.

    Except in mprotect(2), which checks the file below the overlay (security/selinux/hooks.c, observed on
    Linux 6.1); dynamic loaders call it for every library.
    """
    if runtime.selinux.contexts is None:
        return
    for folder in runtime.images.layer_folders:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            await asyncio.to_thread(
                selinux_files.relabel, str(folder), str(runtime.selinux.contexts.ro_file), "root"
            )
        except (PhantomError, OSError) as error:
            log.warning(
                "failed to label files of images, containers may be unable to load their libraries: %s", error
            )


async def label_sources(
    runtime: Runtime, record: ContainerRecord, volumes: Sequence[str], labels: SelinuxLabels, folder: str
) -> None:
    """`volumes`: paths of the image's volumes; `folder`: of its snapshot.

    Raises InvalidArgument naming the mount, ResourceExhausted, Internal.
    """
    for path in volumes:
        volume = os.path.join(folder, requests.volume_folder(path))
        await asyncio.to_thread(selinux_files.relabel, volume, labels.mount, f"image.volumes {path!r}")
    for index, mount in enumerate(record.config.mounts):
        if mount.selinux_relabel and mount.image is None:
            field = f"mounts[{index}].selinux_relabel"
            await asyncio.to_thread(_label_volume, mount.host_path, labels.mount, field)
    contexts = runtime.selinux.contexts
    for image_mount in record.image_mounts:
        # A single file is bound from its layer, which all pods share. Folders get their mount's label.
        if contexts is not None and len(image_mount.stack) == 1:
            selinux_files.label(image_mount.stack[0], str(contexts.ro_file))


def _label_volume(path: str, context: str, field: str) -> None:
    """A missing folder is created, as when it is mounted."""
    try:
        os.makedirs(path, 0o755, exist_ok=True)
    except FileExistsError:
        pass  # a file, a socket, a device
    except OSError as error:
        raise kernel_error(f"{field}: make {path}", error.errno or 0) from error
    selinux_files.relabel(path, context, field)

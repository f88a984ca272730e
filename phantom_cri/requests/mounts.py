"""The mounts of a container's request: checked, and resolved to binds.

Rules of CRI and containerd: every bind includes its submounts; with plain `readonly` these stay writable,
with `recursive_read_only` they do not; a missing host path is created, as a folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from phantom_cri.errors import InvalidArgument
from phantom_cri.model import ContainerConfig, ImageConfig, ImageMount, Mount
from phantom_cri.plans import constants
from phantom_cri.plans.spec import Bind
from phantom_cri.requests.mountinfo import HostMount, mount_holding
from phantom_cri.requests.paths import clean, covers, host_path

_PROPAGATION = {
    "private": constants.MS_PRIVATE,
    "host_to_container": constants.MS_SLAVE,
    "bidirectional": constants.MS_SHARED,
}

_OPTIONS = {name: attribute for attribute, name in constants.MOUNT_ATTRIBUTES.items()}

_MAY_COVER_PROC = frozenset(
    f"/proc/{name}"
    for name in ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo")
) | {"/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled"}
"""Files that a container may cover (LXCFS); other files below /proc are part of its confinement."""


def binds(config: ContainerConfig, images: Sequence[ImageMount] = ()) -> tuple[Bind, ...]:
    """The binds of `config.mounts`, in the given order. Raises InvalidArgument naming field and value.

    `images`: the resolved mounts of images, in their order.
    """
    found = iter(images)
    return tuple(
        _bind(mount, f"mounts[{index}]")
        if mount.image is None
        else _image_bind(mount, f"ImageVolumeMountFailed: mounts[{index}]", next(found, None))
        for index, mount in enumerate(config.mounts)
    )


def check_propagation(
    config: ContainerConfig, holding: Callable[[str], HostMount | None] = mount_holding
) -> None:
    """Raises InvalidArgument for a propagation that the mount of its host path does not support.

    Resolves a host path only if propagation depends on it, since a dead NFS server would block the caller.
    All others are resolved by the container's own process only.
    """
    for index, mount in enumerate(config.mounts):
        if mount.propagation != "private":
            _check_propagation(mount, f"mounts[{index}]", holding)


def _bind(mount: Mount, field: str) -> Bind:
    _check_supported(mount, field)
    target = _target(mount, field)
    source = host_path(mount.host_path, f"{field}.host_path")
    _check_target(source, target, field)
    flags = constants.ATTACH_CREATE | (constants.ATTACH_RECURSIVE if mount.recursive_read_only else 0)
    attributes = constants.MOUNT_ATTR_RDONLY if mount.readonly else 0
    for option in mount.options:
        attributes |= _OPTIONS.get(option, 0)
    return Bind(
        source,
        target,
        constants.OPEN_CREATE | (0 if "bind" in mount.options else constants.OPEN_RECURSIVE),
        attributes,
        _PROPAGATION[mount.propagation],
        flags,
        is_mapped=bool(mount.uid_mappings),
    )


def _image_bind(mount: Mount, field: str, image: ImageMount | None) -> Bind:
    """Never "noexec": such images may contain programs (KEP-4639)."""
    if mount.host_path:
        raise InvalidArgument(f"{field}.host_path: {mount.host_path!r} cannot be combined with an image")
    if not mount.readonly:
        raise InvalidArgument(f"{field}.readonly: a mount of an image must be read-only")
    if mount.propagation != "private":
        raise InvalidArgument(f"{field}.propagation: {mount.propagation!r} is not possible for an image")
    if mount.image_sub_path.startswith("/") or ".." in mount.image_sub_path.split("/"):
        raise InvalidArgument(f'{field}.image_sub_path: {mount.image_sub_path!r} is absolute or has a ".."')
    target = _target(mount, field)
    _check_target("", target, field)
    return Bind("", target, 0, constants.MOUNT_ATTR_RDONLY, stack=image.stack if image else ())


def _target(mount: Mount, field: str) -> str:
    """A relative path starts at the root."""
    if not mount.container_path:
        raise InvalidArgument(f"{field}.container_path: must not be empty")
    return clean("/" + mount.container_path, f"{field}.container_path")


def _check_supported(mount: Mount, field: str) -> None:
    if not mount.recursive_read_only:
        return
    if not mount.readonly:
        raise InvalidArgument(f"RROUnsupported: {field}.recursive_read_only: needs readonly")
    if mount.propagation != "private":
        raise InvalidArgument(
            f"RROUnsupported: {field}.recursive_read_only: needs private propagation, not {mount.propagation}"
        )


def _check_target(source: str, target: str, field: str) -> None:
    if target == "/":
        raise InvalidArgument(f"{field}.container_path: '/' is the container's root and cannot be covered")
    if target == "/proc" and source.rstrip("/") != "/proc":
        raise InvalidArgument(f"{field}.container_path: only the host's /proc can be mounted on /proc")
    if target.startswith("/proc/") and target not in _MAY_COVER_PROC:
        raise InvalidArgument(
            f"{field}.container_path: {target} cannot be covered, because it is inside /proc"
        )


def _check_propagation(mount: Mount, field: str, holding: Callable[[str], HostMount | None]) -> None:
    """Without a shared mount underneath, the kernel would accept the propagation without any effect."""
    found = holding(os.path.realpath(mount.host_path))
    if found is None:
        raise InvalidArgument(f"{field}.host_path: no mount contains {mount.host_path}")
    if mount.propagation == "bidirectional" and not found.shared:
        kinds = "a shared mount"
    elif mount.propagation == "host_to_container" and not (found.shared or found.slave):
        kinds = "a shared or slave mount"
    else:
        return
    raise InvalidArgument(
        f'{field}: path "{mount.host_path}" is mounted on "{found.path}" but it is not {kinds}'
    )


def anonymous_volumes(asked: Iterable[Bind], image: ImageConfig) -> tuple[str, ...]:
    """The image's volumes that no mount of the request covers. Raises InvalidArgument for a bad path."""
    targets = [bind.target for bind in asked]
    found = []
    for path in sorted(image.volumes):
        target = clean("/" + path, "image.volumes")
        _check_target("", target, "image.volumes")
        if not any(covers(above, target) for above in targets):
            found.append(target)
    return tuple(found)


def volume_folder(path: str) -> str:
    """A folder name for the anonymous volume at `path`: one component, different for different paths."""
    return "volume" + path.replace("%", "%25").replace("/", "%2F")

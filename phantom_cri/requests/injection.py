"""What CDI devices add to a container: resolved once, when it is created, and stored in its record.

The request itself stays unchanged in `record.config`, which status reports.
"""

from __future__ import annotations

from phantom_cri import codec
from phantom_cri.model import ContainerConfig, ContainerRecord, EnvVar, Injection, NamespaceOptions
from phantom_cri.plans.spec import HostDevice
from phantom_cri.requests.user_namespace import pod_ids


def injected(record: ContainerRecord, found: Injection) -> ContainerRecord:
    groups = tuple(dict.fromkeys((*record.user.groups, *found.groups)))
    return codec.replace(record, injection=found, user=codec.replace(record.user, groups=groups))


def effective(record: ContainerRecord) -> ContainerConfig:
    """The container's request with the injection; the device wins for the same variable or path."""
    added, config = record.injection, record.config
    if added is None:
        return config
    targets = {mount.container_path for mount in added.mounts}
    # A mount of an image is kept, and covered: `record.image_mounts` depends on its position.
    kept = (mount for mount in config.mounts if mount.image or mount.container_path not in targets)
    return codec.replace(
        config,
        envs=(*config.envs, *(EnvVar(name=name, value=value) for name, value in added.env)),
        mounts=(*kept, *added.mounts),
    )


def all_devices(
    record: ContainerRecord, pod: NamespaceOptions, asked: tuple[HostDevice, ...]
) -> tuple[HostDevice, ...]:
    """The nodes of the request and those of its CDI devices, which win.

    Owners in CDI files are ids of the container; nodes of the host keep their owners.
    """
    if record.injection is None or not record.injection.devices:
        return asked
    ids = pod_ids(pod)
    found = {device.path: device for device in asked}
    for one in record.injection.devices:
        uid = record.user.uid if one.uid is None else one.uid
        gid = record.user.gid if one.gid is None else one.gid
        if ids is not None:
            uid, gid = ids.host_uid(uid) or ids.uid, ids.host_gid(gid) or ids.gid
        found[one.path] = HostDevice(one.path, one.mode, one.major, one.minor, uid, gid, one.access)
    return tuple(found.values())

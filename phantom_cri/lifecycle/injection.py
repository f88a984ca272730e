"""What CDI devices add to a container: found once, when it is created, and kept with its record.

What the request said stays as it was in `record.config`, which is what status tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from phantom_cri import codec, launch
from phantom_cri.errors import Unimplemented
from phantom_cri.lifecycle.node import Node
from phantom_cri.model import ContainerConfig, ContainerRecord, EnvVar


async def injected(node: Node, record: ContainerRecord, names: Sequence[str]) -> ContainerRecord:
    """`record` with what the devices `names` add. Raises FailedPrecondition, Unimplemented."""
    found = await asyncio.to_thread(node.cdi.injection, names, record.user)
    for hook in found.hooks:
        raise Unimplemented(f"CDI device injection failed: hook {hook.name} {hook.path}: is not supported")
    groups = tuple(dict.fromkeys((*record.user.groups, *found.groups)))
    return codec.replace(record, injection=found, user=codec.replace(record.user, groups=groups))


def effective(record: ContainerRecord) -> ContainerConfig:
    """The container's request with what was injected: a variable or path that both have is the device's."""
    added, config = record.injection, record.config
    if added is None:
        return config
    targets = {mount.container_path for mount in added.mounts}
    # A mount of an image stays, and is covered: `record.image_mounts` goes by its place among the others.
    kept = (mount for mount in config.mounts if mount.image or mount.container_path not in targets)
    return codec.replace(
        config,
        envs=(*config.envs, *(EnvVar(name=name, value=value) for name, value in added.env)),
        mounts=(*kept, *added.mounts),
    )


def all_devices(record: ContainerRecord) -> tuple[launch.HostDevice, ...]:
    """The nodes that the request asks for and those of its CDI devices, which win. As `resolve_devices`."""
    asked = launch.resolve_devices(record.config)
    if record.injection is None or not record.injection.devices:
        return asked
    found = {device.path: device for device in asked}
    for one in record.injection.devices:
        found[one.path] = launch.HostDevice(
            one.path, one.mode, one.major, one.minor, one.uid, one.gid, one.access
        )
    return tuple(found.values())

"""What CDI devices add to a container: found once, when it is created, and kept with its record.

What the request said stays as it was in `record.config`, which is what status tells.
"""

from __future__ import annotations

import asyncio
import os

from phantom_cri import cdi, codec, requests
from phantom_cri.errors import FailedPrecondition, Unimplemented
from phantom_cri.lifecycle import oci
from phantom_cri.lifecycle.live import Pod
from phantom_cri.lifecycle.runtime import Runtime
from phantom_cri.model import ContainerConfig, ContainerRecord, EnvVar, InjectedHook, Injection
from phantom_cri.plans import Hooks, HostDevice, Process


async def find_injection(runtime: Runtime, config: ContainerConfig) -> Injection | None:
    """What the CDI devices of a request add; None when it asks for none.

    Raises InvalidArgument, FailedPrecondition, Unimplemented.
    """
    names = cdi.requested(config.cdi_devices, config.annotations)
    if not names:
        return None
    found = await asyncio.to_thread(runtime.cdi.injection, names)
    for hook in found.hooks:
        check_hook(hook)
    return found


def injected(record: ContainerRecord, found: Injection) -> ContainerRecord:
    groups = tuple(dict.fromkeys((*record.user.groups, *found.groups)))
    return codec.replace(record, injection=found, user=codec.replace(record.user, groups=groups))


def check_hook(hook: InjectedHook) -> None:
    """One left out would make a device that looks as if it worked. Raises Unimplemented, FailedPrecondition.

    createContainer is what vendors use now; the others want the process of a runtime that is not ours.
    """
    field = f"CDI device injection failed: hook {hook.name} {hook.path}"
    if hook.name != "createContainer":
        raise Unimplemented(f"{field}: only createContainer hooks are supported")
    if not os.access(hook.path, os.X_OK) or os.path.isdir(hook.path):
        raise FailedPrecondition(f"{field}: is not a program on this node")


def hooks_of(record: ContainerRecord, process: Process, folder: str) -> Hooks | None:
    """The hooks of its CDI devices; the bundle that they are run in is made below `folder`. Idempotent."""
    if record.injection is None or not record.injection.hooks:
        return None
    bundle = _make_bundle(folder, record, process)
    return Hooks(record.injection.hooks, _hook_state(record, bundle), bundle)


def _make_bundle(folder: str, record: ContainerRecord, process: Process) -> str:
    """A folder as OCI hooks expect it, made below `folder`: what they look for in there is the root's path.

    Nothing is ever mounted on its `rootfs` but in the mount namespace of the container's start. Idempotent.
    """
    bundle = os.path.join(folder, "bundle")
    os.makedirs(os.path.join(bundle, "rootfs"), mode=0o700, exist_ok=True)
    config = {
        "ociVersion": oci.VERSION,
        "root": {"path": "rootfs"},
        "process": oci.process_document(record, process),
        "annotations": record.config.annotations,
    }
    codec.write_atomically(os.path.join(bundle, "config.json"), codec.to_json(config))
    return bundle


def _hook_state(record: ContainerRecord, bundle: str) -> bytes:
    """What a hook reads from its stdin (OCI runtime spec, "State"); there is no process yet."""
    state = {
        "ociVersion": oci.VERSION,
        "id": record.id,
        "status": "creating",
        "bundle": bundle,
        "annotations": record.config.annotations,
    }
    return codec.to_json(state)


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


def all_devices(pod: Pod, record: ContainerRecord, asked: tuple[HostDevice, ...]) -> tuple[HostDevice, ...]:
    """The nodes that the request asks for and those of its CDI devices, which win.

    CDI's owners are the container's ids; the host's own nodes keep theirs.
    """
    if record.injection is None or not record.injection.devices:
        return asked
    ids = requests.pod_ids(pod.record.config.security.namespaces)
    found = {device.path: device for device in asked}
    for one in record.injection.devices:
        uid = record.user.uid if one.uid is None else one.uid
        gid = record.user.gid if one.gid is None else one.gid
        if ids is not None:
            uid, gid = ids.host_uid(uid) or ids.uid, ids.host_gid(gid) or ids.gid
        found[one.path] = HostDevice(one.path, one.mode, one.major, one.minor, uid, gid, one.access)
    return tuple(found.values())

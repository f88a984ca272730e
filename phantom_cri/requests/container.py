"""A container's request, checked and resolved once, and the `ContainerSpec` made from it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from phantom_cri.codec import Record
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import (
    CompiledPolicy,
    ContainerConfig,
    ImageConfig,
    ImageMount,
    NamespaceOptions,
    SandboxConfig,
    SelinuxLabels,
    User,
)
from phantom_cri.plans import constants
from phantom_cri.plans.spec import (
    Bind,
    CgroupView,
    ContainerSpec,
    Hooks,
    HostDevice,
    Io,
    Namespaces,
    OverlayRoot,
    Process,
)
from phantom_cri.plans.standard import MOUNT_POINTS, SHM
from phantom_cri.requests.devices import resolve_devices
from phantom_cri.requests.mounts import anonymous_volumes, binds, check_propagation, volume_folder
from phantom_cri.requests.paths import covers, depth
from phantom_cri.requests.process import merged
from phantom_cri.requests.user_namespace import check_container_user, check_mapped, pod_ids


class Resolved(Record, frozen=True):
    """A container's request, resolved for this node. `asked`: its mounts, in their order.

    volumes: paths of the image's volumes that are not covered by a mount.
    """

    config: ContainerConfig
    process: Process
    asked: tuple[Bind, ...]
    volumes: tuple[str, ...]
    devices: tuple[HostDevice, ...]


def resolve(
    config: ContainerConfig,
    image: ImageConfig,
    pod: SandboxConfig,
    mounted: Sequence[ImageMount] = (),
    *,
    hostname: str = "",
    user: User,
) -> Resolved:
    """Raises InvalidArgument, FailedPrecondition, Unimplemented, naming field and value; changes nothing.

    Reads the host's devices and mounts, never the network. `mounted`: its resolved mounts of images; `user`:
    the user it runs as, as found in its image.
    """
    check_namespaces(config.security.namespaces, pod.security.namespaces)
    check_container_user(config, pod.security.namespaces)
    check_mapped(user, pod.security.namespaces)
    if config.security.privileged and not pod.security.privileged:
        raise InvalidArgument("security_context.privileged: the pod sandbox is not privileged")
    process = merged(config, image, hostname=hostname, home=user.home)
    asked = binds(config, mounted)
    check_propagation(config)
    return Resolved(config, process, asked, anonymous_volumes(asked, image), resolve_devices(config))


class Surroundings(Record, frozen=True):
    """What the node adds to a container's request.

    pod_files: (path in the container, path on the host) of the pod's resolv.conf, hosts and hostname.
    volumes_folder: the folder of its anonymous volumes. pid_of: the process whose pid namespace it joins.
    """

    user: User
    root: OverlayRoot
    pod: NamespaceOptions = NamespaceOptions()
    policy: CompiledPolicy = CompiledPolicy()
    cgroup_view: CgroupView | None = None
    pod_files: tuple[tuple[str, str], ...] = ()
    volumes_folder: str = ""
    pid_of: str = ""
    hooks: Hooks | None = None
    labels: SelinuxLabels | None = None


def container_spec(resolved: Resolved, given: Surroundings) -> ContainerSpec:
    config = resolved.config
    security, modes = config.security, config.security.namespaces
    return ContainerSpec(
        process=resolved.process,
        user=given.user,
        root=given.root,
        readonly_root=security.readonly_rootfs,
        privileged=security.privileged,
        io=Io("terminal" if config.tty else "pipes", config.stdin),
        namespaces=Namespaces(
            pid="own" if modes.pid == "container" else "target" if modes.pid == "target" else "pod",
            pid_of=given.pid_of if modes.pid == "target" else "",
            host_ipc=given.pod.ipc == "node",
            user=pod_ids(given.pod),
        ),
        policy=given.policy,
        mounts=_mounts(resolved, given),
        replaced=_replaced(resolved.asked),
        devices=resolved.devices,
        cgroup_view=given.cgroup_view,
        oom_score_adj=config.resources.oom_score_adj,
        hooks=given.hooks,
        labels=given.labels,
    )


def _mounts(resolved: Resolved, given: Surroundings) -> tuple[Bind, ...]:
    """The pod's files, the image's volumes and the request's mounts, parents first."""
    targets = {bind.target for bind in resolved.asked}
    read_only = constants.MOUNT_ATTR_RDONLY if resolved.config.security.readonly_rootfs else 0
    found = [
        Bind(source, target, 0, read_only) for target, source in given.pod_files if target not in targets
    ]
    is_mapped = given.pod.user == "pod"
    for path in resolved.volumes:
        found.append(Bind(os.path.join(given.volumes_folder, volume_folder(path)), path, is_mapped=is_mapped))
    if given.pod.ipc == "node" and not any(covers(target, SHM) for target in targets):
        found.append(Bind(SHM, SHM))
    return tuple(sorted((*found, *resolved.asked), key=lambda bind: depth(bind.target)))


def _replaced(asked: Sequence[Bind]) -> tuple[str, ...]:
    return tuple(point for point in MOUNT_POINTS if any(covers(bind.target, point) for bind in asked))


def check_namespaces(asked: NamespaceOptions, pod: NamespaceOptions) -> None:
    """A container may leave the pod's namespaces for its own, but not for the host's."""
    for field in ("network", "ipc", "pid"):
        mode, of_pod = getattr(asked, field), getattr(pod, field)
        if mode == "node" and of_pod != "node":
            raise InvalidArgument(f"namespace_options.{field}: NODE, but the pod has {of_pod.upper()}")
        if field != "pid" and mode not in ("pod", "node"):
            raise InvalidArgument(f"namespace_options.{field}: {mode.upper()} is for pid only")
    if (asked.pid == "target") != bool(asked.target_id):
        raise InvalidArgument(
            f"namespace_options: target_id {asked.target_id!r} with pid {asked.pid.upper()}"
        )

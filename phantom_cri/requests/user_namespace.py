"""A pod's user namespace: checks of the request, and its id mapping.

Rules: as the kubelet and containerd's CRI plugin. Inside, ids start at 0; outside, none of them is the host's
root.
"""

from __future__ import annotations

from phantom_cri.errors import InvalidArgument
from phantom_cri.model import ContainerConfig, IdMapping, NamespaceOptions, User
from phantom_cri.plans.spec import PodIds

_IDS = (1 << 32) - 1
"""Number of ids: the last value means "no id" (linux/uidgid.h)."""


def pod_ids(options: NamespaceOptions) -> PodIds | None:
    """The mapping of a pod checked by `check_pod_user`; None if it uses the host's ids."""
    if options.user != "pod":
        return None
    (uids,), (gids,) = options.uids, options.gids
    return PodIds(uids.host_id, uids.length, gids.host_id, gids.length)


def check_pod_user(options: NamespaceOptions, field: str = "namespace_options") -> None:
    """Check a pod's options. Raises InvalidArgument naming the field and the value."""
    users = f"{field}.userns_options"
    if options.user == "node":
        if options.uids or options.gids:
            raise InvalidArgument(f"{users}: id mappings are not possible with mode NODE")
        return
    if options.user != "pod":
        raise InvalidArgument(f"{users}.mode: a pod takes POD or NODE, not {options.user.upper()}")
    _check_mapping(options.uids, f"{users}.uids")
    _check_mapping(options.gids, f"{users}.gids")
    if options.uids[0].length != options.gids[0].length:
        raise InvalidArgument(
            f"{users}.gids: {options.gids[0].length} ids, but uids has {options.uids[0].length}"
        )
    for name, mode in (("network", options.network), ("pid", options.pid), ("ipc", options.ipc)):
        if mode == "node":
            raise InvalidArgument(f"{field}.{name}: NODE is not possible with a user namespace")


def _check_mapping(mappings: tuple[IdMapping, ...], field: str) -> None:
    if len(mappings) != 1:
        raise InvalidArgument(f"{field}: exactly one mapping is possible, not {len(mappings)}")
    mapping = mappings[0]
    if mapping.container_id != 0:
        raise InvalidArgument(f"{field}: id 0 must be mapped, but the first one is {mapping.container_id}")
    if mapping.length == 0:
        raise InvalidArgument(f"{field}: the mapping has no ids")
    if mapping.host_id == 0:
        raise InvalidArgument(f"{field}: host_id 0 would make its root the host's")
    if mapping.host_id + mapping.length > _IDS:
        raise InvalidArgument(f"{field}: no {mapping.length} ids follow {mapping.host_id}")


def check_container_user(config: ContainerConfig, pod: NamespaceOptions) -> None:
    """Check a container's options: it uses the pod's ids. Raises InvalidArgument naming field and value."""
    asked = config.security.namespaces
    if asked.user != pod.user:
        raise InvalidArgument(
            f"namespace_options.userns_options: {asked.user.upper()}, but the pod has {pod.user.upper()}"
        )
    if (asked.uids, asked.gids) != (pod.uids, pod.gids):
        raise InvalidArgument("namespace_options.userns_options: the mappings differ from the pod's")
    for index, mount in enumerate(config.mounts):
        field = f"mounts[{index}]"
        mapped = mount.uid_mappings or mount.gid_mappings
        if mapped and pod.user != "pod":
            raise InvalidArgument(f"{field}.uidMappings: the pod has no user namespace")
        if mapped and (mount.uid_mappings, mount.gid_mappings) != (pod.uids, pod.gids):
            raise InvalidArgument(f"{field}.uidMappings, gidMappings: they differ from the pod's")
        if pod.user == "pod" and mount.propagation == "bidirectional":
            raise InvalidArgument(
                f"{field}.propagation: mounts made in a user namespace never reach the host "
                f"(mount_namespaces(7)): BIDIRECTIONAL is not possible"
            )


def check_mapped(user: User, pod: NamespaceOptions) -> None:
    """Raises InvalidArgument for a process's user or group that the pod's user namespace lacks."""
    ids = pod_ids(pod)
    if ids is None:
        return
    if ids.host_uid(user.uid) is None:
        raise InvalidArgument(f"user {user.uid}: the pod's user namespace has {ids.uid_count} ids from 0 on")
    for group in (user.gid, *user.groups):
        if ids.host_gid(group) is None:
            raise InvalidArgument(
                f"group {group}: the pod's user namespace has {ids.gid_count} ids from 0 on"
            )

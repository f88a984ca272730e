"""Combines the edits of CDI files for one container, with the node's own device numbers."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence

from phantom_cri.cdi.document import Described, DeviceNode, Edits, Mount
from phantom_cri.errors import FailedPrecondition, Unimplemented
from phantom_cri.model import InjectedDevice, Injection, Propagation
from phantom_cri.model import InjectedHook as ModelHook
from phantom_cri.model import Mount as ModelMount

_KINDS = {"b": stat.S_IFBLK, "c": stat.S_IFCHR, "u": stat.S_IFCHR, "p": stat.S_IFIFO}
_PROPAGATIONS: dict[str, Propagation] = {
    **dict.fromkeys(("private", "rprivate"), "private"),
    **dict.fromkeys(("slave", "rslave"), "host_to_container"),
    **dict.fromkeys(("shared", "rshared"), "bidirectional"),
}
_OPTIONS = ("nosuid", "nodev", "noexec", "noatime", "nodiratime", "strictatime", "bind")
_NOTHING = frozenset({"rbind", "relatime", "rw", "suid", "dev", "exec", "atime", "diratime", "defaults"})
_DEFAULT_MODE = 0o666


def merged(devices: Sequence[Described]) -> Injection:
    """All edits in the order of the requested devices; for the same name or path the last one wins.

    Raises FailedPrecondition, Unimplemented.
    """
    env: dict[str, str] = {}
    nodes: dict[str, InjectedDevice] = {}
    mounts: dict[str, ModelMount] = {}
    hooks: list[ModelHook] = []
    groups: dict[int, None] = {}
    for path, edits in _in_order(devices):
        _refuse(edits, path)
        env |= {variable.partition("=")[0]: variable.partition("=")[2] for variable in edits.env}
        nodes |= {node.path: _node(node, path) for node in edits.device_nodes}
        mounts |= {mount.container_path: _mount(mount, path) for mount in edits.mounts}
        hooks += [
            ModelHook(one.hook_name, one.path, one.args, one.env, one.timeout or 0) for one in edits.hooks
        ]
        groups |= dict.fromkeys(gid for gid in edits.additional_gids if gid)
    return Injection(
        devices=tuple(nodes.values()),
        mounts=tuple(mounts.values()),
        env=tuple(env.items()),
        groups=tuple(groups),
        hooks=tuple(hooks),
    )


def _in_order(devices: Iterable[Described]) -> Iterator[tuple[str, Edits]]:
    """Edits in order: a file's own edits come once, right before those of its first device."""
    seen = set()
    for path, document, device in devices:
        if path not in seen:
            seen.add(path)
            yield path, document.container_edits
        yield path, device.container_edits


def _refuse(edits: Edits, path: str) -> None:
    """Refuse unsupported edits: a device without all of its edits would only look as if it worked."""
    if edits.intel_rdt is not None:
        raise Unimplemented(f"CDI file {path}: intelRdt: classes of service are not supported")
    if edits.net_devices:
        name = edits.net_devices[0].host_interface_name
        raise Unimplemented(f"CDI file {path}: netDevices: {name!r}: moving interfaces is not supported")


def _node(node: DeviceNode, path: str) -> InjectedDevice:
    """Type and numbers are those of the host's device node unless the file sets them."""
    source = node.host_path or node.path
    mode, major, minor = _KINDS.get(node.type, 0), node.major, node.minor
    permissions = _DEFAULT_MODE
    if not mode or (mode != stat.S_IFIFO and major is None):
        try:
            status = os.lstat(source)
        except OSError as error:
            raise FailedPrecondition(f"CDI file {path}: deviceNodes: {source}: {error.strerror}") from None
        kind = stat.S_IFMT(status.st_mode)
        if kind not in _KINDS.values() or (mode and kind != mode):
            raise FailedPrecondition(f"CDI file {path}: deviceNodes: {source} is not such a device node")
        mode, permissions = kind, stat.S_IMODE(status.st_mode)
        major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    if node.file_mode is not None:
        permissions = stat.S_IMODE(node.file_mode)
    access = "" if node.permissions == "none" or mode == stat.S_IFIFO else node.permissions or "rwm"
    return InjectedDevice(
        path=node.path,
        mode=mode | permissions,
        major=major or 0,
        minor=minor or 0,
        uid=node.uid,
        gid=node.gid,
        access=access,
    )


def _mount(mount: Mount, path: str) -> ModelMount:
    field = f"CDI file {path}: mounts: {mount.container_path}"
    if mount.type not in ("", "bind", "none"):
        raise Unimplemented(f"{field}: type {mount.type!r} is not supported")
    if not os.path.exists(mount.host_path):
        raise FailedPrecondition(f"{field}: hostPath {mount.host_path!r} does not exist")
    propagation: Propagation = "private"
    options: list[str] = []
    for option in mount.options:
        if option in _PROPAGATIONS:
            propagation = _PROPAGATIONS[option]
        elif option in _OPTIONS:
            options.append(option)
        elif option != "ro" and option not in _NOTHING:
            raise Unimplemented(f"{field}: option {option!r} is not supported")
    return ModelMount(
        container_path=mount.container_path,
        host_path=mount.host_path,
        readonly="ro" in mount.options,
        propagation=propagation,
        options=tuple(options),
    )

"""Device nodes of a container: the requested ones, or all of the host's if it is privileged."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from phantom_cri.errors import InvalidArgument
from phantom_cri.model import ContainerConfig, Device
from phantom_cri.plans.spec import HostDevice
from phantom_cri.requests.paths import clean, host_path

_NOT_DEVICES = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"})
"""Folders below /dev without device nodes of the host, or with those of other containers."""


class DeviceRule(NamedTuple):
    """Access allowed by the device cgroup. `kind`: "c", "b" or "a" for both; None: any number."""

    kind: Literal["a", "b", "c"]
    major: int | None
    minor: int | None
    access: str


ALL_DEVICES = (DeviceRule("a", None, None, "rwm"),)


def resolve_devices(config: ContainerConfig) -> tuple[HostDevice, ...]:
    """The nodes of `config.devices`; for a privileged container, all of the host's.

    Symlinks are followed, a folder stands for all device nodes below it.
    Raises InvalidArgument naming field and value.
    """
    found: dict[str, HostDevice] = {}
    if config.security.privileged:
        found = {device.path: device for device in _below("/dev", "/dev", "rwm")}
    for index, device in enumerate(config.devices):
        for node in _resolve(device, f"devices[{index}]"):
            found[node.path] = node
    return tuple(found.values())


def device_rules(config: ContainerConfig, devices: Sequence[HostDevice]) -> tuple[DeviceRule, ...]:
    """Rules in addition to those of every container; `devices` from `resolve_devices`."""
    if config.security.privileged:
        return ALL_DEVICES
    return tuple(
        DeviceRule("b" if stat.S_ISBLK(node.mode) else "c", node.major, node.minor, node.access)
        for node in devices
        if node.access and not stat.S_ISFIFO(node.mode)
    )


def _resolve(device: Device, field: str) -> list[HostDevice]:
    if not device.permissions or set(device.permissions) - set("rwm"):
        raise InvalidArgument(f"{field}.permissions: {device.permissions!r} may only contain r, w and m")
    source = host_path(device.host_path, f"{field}.host_path")
    target = clean(device.container_path or source, f"{field}.container_path")
    try:
        status = os.stat(source)
        if stat.S_ISDIR(status.st_mode):
            nodes = list(_below(source, target, device.permissions))
        else:
            nodes = [_node(status, target, device.permissions)] if _is_device(status) else []
    except OSError as error:
        raise InvalidArgument(f"{field}.host_path: {source}: {error.strerror}") from None
    if not nodes:
        raise InvalidArgument(f"{field}.host_path: {source} is not a device node and contains none")
    return nodes


def _is_device(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)


def _node(status: os.stat_result, path: str, access: str) -> HostDevice:
    major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return HostDevice(path, status.st_mode, major, minor, status.st_uid, status.st_gid, access)


def _below(folder: str, target: str, access: str) -> Iterator[HostDevice]:
    """All device nodes below a folder of the host, without links and nodes removed meanwhile."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            path = f"{target}/{entry.name}"
            if stat.S_ISDIR(status.st_mode) and entry.name not in _NOT_DEVICES:
                yield from _below(entry.path, path, access)
            elif _is_device(status) and entry.name != "console":
                yield _node(status, path, access)

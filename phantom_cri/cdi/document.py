"""One CDI file: its fields, decoded strictly, and the rules that every file must follow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from phantom_cri.cdi.names import is_device, is_kind
from phantom_cri.codec import Record

Version = tuple[int, int, int]
HookName = Literal["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]

_KNOWN_VERSIONS = frozenset({*((0, minor, 0) for minor in range(1, 9)), (1, 0, 0), (1, 1, 0)})
_LARGEST_ID = 2**32 - 2


class DeviceNode(Record, frozen=True, rename="camel"):
    path: str
    host_path: str = ""
    type: Literal["", "b", "c", "u", "p"] = ""
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class Mount(Record, frozen=True, rename="camel"):
    host_path: str
    container_path: str
    options: tuple[str, ...] = ()
    type: str = ""


class Hook(Record, frozen=True, rename="camel"):
    hook_name: HookName
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class IntelRdt(Record, frozen=True, rename={"clos_id": "closID", "l3_cache_schema": "l3CacheSchema",
                                            "mem_bw_schema": "memBwSchema", "enable_cmt": "enableCMT",
                                            "enable_mbm": "enableMBM",
                                            "enable_monitoring": "enableMonitoring"}):  # fmt: skip
    clos_id: str = ""
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    enable_cmt: bool = False
    enable_mbm: bool = False
    schemata: tuple[str, ...] = ()
    enable_monitoring: bool = False


class NetDevice(Record, frozen=True, rename="camel"):
    host_interface_name: str
    name: str


class Edits(Record, frozen=True, rename="camel"):
    env: tuple[str, ...] = ()
    device_nodes: tuple[DeviceNode, ...] = ()
    mounts: tuple[Mount, ...] = ()
    hooks: tuple[Hook, ...] = ()
    intel_rdt: IntelRdt | None = None
    additional_gids: tuple[int, ...] = ()
    net_devices: tuple[NetDevice, ...] = ()


class Device(Record, frozen=True, rename="camel"):
    name: str
    container_edits: Edits
    annotations: dict[str, str] = {}


class Document(Record, frozen=True, rename="camel"):
    cdi_version: str
    kind: str
    devices: tuple[Device, ...]
    container_edits: Edits = Edits()
    annotations: dict[str, str] = {}


class Described(NamedTuple):
    """A device and the file that describes it; the file's own edits come once, with its first device."""

    path: str
    document: Document
    device: Device


def check(document: Document) -> None:
    """Raises ValueError naming the field and the value that break a rule."""
    version = _version(document.cdi_version)
    if not is_kind(document.kind):
        raise ValueError(f"kind: {document.kind!r} is not vendor/class")
    if not document.devices:
        raise ValueError("devices: the list is empty")
    _check_edits(document.container_edits, "containerEdits")
    names = set()
    for index, device in enumerate(document.devices):
        field = f"devices[{index}]"
        if not is_device(device.name):
            raise ValueError(f"{field}.name: {device.name!r} is not a device's name")
        if device.name in names:
            raise ValueError(f"{field}.name: {device.name!r} appears twice")
        names.add(device.name)
        if device.container_edits == Edits():
            raise ValueError(f"{field}.containerEdits: is empty")
        _check_edits(device.container_edits, f"{field}.containerEdits")
    needed, what = max(_features(document), default=(version, ""))
    if needed > version:
        wanted = ".".join(map(str, needed))
        raise ValueError(f"{what} needs cdiVersion {wanted}, the file says {document.cdi_version}")


def _version(text: str) -> Version:
    parts = text.removeprefix("v").split(".")
    if len(parts) == 3 and all(part.isascii() and part.isdecimal() and len(part) < 4 for part in parts):
        version = (int(parts[0]), int(parts[1]), int(parts[2]))
        if version in _KNOWN_VERSIONS:
            return version
    raise ValueError(f"cdiVersion: {text!r} is not supported")


def _features(document: Document) -> Iterator[tuple[Version, str]]:
    """The file's features that are newer than version 0.1.0, each with the version that introduced it."""
    if "." in document.kind.partition("/")[2]:
        yield (0, 6, 0), "kind with a dot in its class"
    if document.annotations or any(device.annotations for device in document.devices):
        yield (0, 6, 0), "annotations"
    if any(not device.name[0].isalpha() for device in document.devices):
        yield (0, 5, 0), "a device's name that begins with a digit"
    for edits in (document.container_edits, *(device.container_edits for device in document.devices)):
        if any(mount.type for mount in edits.mounts):
            yield (0, 4, 0), "mounts.type"
        if any(node.host_path for node in edits.device_nodes):
            yield (0, 5, 0), "deviceNodes.hostPath"
        if edits.intel_rdt is not None:
            yield (0, 7, 0), "intelRdt"
            if edits.intel_rdt.schemata or edits.intel_rdt.enable_monitoring:
                yield (1, 1, 0), "intelRdt.schemata or intelRdt.enableMonitoring"
        if edits.additional_gids:
            yield (0, 7, 0), "additionalGids"
        if edits.net_devices:
            yield (1, 1, 0), "netDevices"


def _check_edits(edits: Edits, field: str) -> None:
    for index, variable in enumerate(edits.env):
        name, equals, _ = variable.partition("=")
        if not name or not equals or "\0" in variable:
            raise ValueError(f"{field}.env[{index}]: {variable!r} is not NAME=value")
    for index, node in enumerate(edits.device_nodes):
        _check_node(node, f"{field}.deviceNodes[{index}]")
    for index, mount in enumerate(edits.mounts):
        _check_path(mount.host_path, f"{field}.mounts[{index}].hostPath")
        _check_path(mount.container_path, f"{field}.mounts[{index}].containerPath")
    for index, hook in enumerate(edits.hooks):
        _check_path(hook.path, f"{field}.hooks[{index}].path")
        if hook.timeout is not None and hook.timeout <= 0:
            raise ValueError(f"{field}.hooks[{index}].timeout: {hook.timeout} is not a number of seconds")
        for text in (*hook.args, *hook.env):
            if "\0" in text:
                raise ValueError(f"{field}.hooks[{index}]: {text!r} has a NUL byte")
    for gid in edits.additional_gids:
        if not 0 <= gid <= _LARGEST_ID:
            raise ValueError(f"{field}.additionalGids: {gid} is not a group's id")


def _check_node(node: DeviceNode, field: str) -> None:
    _check_path(node.path, f"{field}.path")
    if node.host_path:
        _check_path(node.host_path, f"{field}.hostPath")
    if node.permissions != "none" and not set(node.permissions) <= set("rwm"):
        raise ValueError(f"{field}.permissions: {node.permissions!r} may only contain r, w and m")
    numbers = (node.major, node.minor, node.uid, node.gid)
    if any(number is not None and not 0 <= number <= _LARGEST_ID for number in numbers):
        raise ValueError(f"{field}: {node.path}: a number is out of range")
    if node.file_mode is not None and not 0 <= node.file_mode <= 0o177777:
        raise ValueError(f"{field}.fileMode: {node.file_mode} is no file mode")


def _check_path(path: str, field: str) -> None:
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{field}: {path!r} is not an absolute path")

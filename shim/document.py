"""config.json of an OCI bundle, as far as it can be honoured.

A field that is not here is refused by its name: nothing that was asked for is left out silently.
Source: OCI runtime spec 1.3, config.md and config-linux.md.
"""

from __future__ import annotations

import re
from typing import TypeVar

from phantom_cri.codec import DecodeError, Record, from_json
from phantom_cri.errors import InvalidArgument
from phantom_cri.policy import SeccompDocument

T = TypeVar("T")


class Part(Record, frozen=True, rename="camel"):
    """Base of all that follows."""


class ConsoleSize(Part, frozen=True):
    height: int
    width: int


class User(Part, frozen=True):
    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()


class Capabilities(Part, frozen=True):
    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class Rlimit(Part, frozen=True):
    type: str
    soft: int
    hard: int


class Process(Part, frozen=True):
    """Also what an exec is given."""

    cwd: str
    args: tuple[str, ...]
    user: User = User()
    env: tuple[str, ...] = ()
    terminal: bool = False
    console_size: ConsoleSize | None = None
    capabilities: Capabilities = Capabilities()
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    selinux_label: str = ""
    oom_score_adj: int = 0


class Root(Part, frozen=True):
    path: str
    readonly: bool = False


class Mount(Part, frozen=True):
    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()


class Hook(Part, frozen=True):
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int = 0


class Hooks(Part, frozen=True):
    create_container: tuple[Hook, ...] = ()


class Namespace(Part, frozen=True):
    type: str
    path: str = ""


class Device(Part, frozen=True):
    path: str
    type: str
    major: int = 0
    minor: int = 0
    file_mode: int = 0o666
    uid: int = 0
    gid: int = 0


class DeviceRule(Part, frozen=True):
    allow: bool
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = ""


class Memory(Part, frozen=True):
    limit: int = 0
    swap: int = 0


class Cpu(Part, frozen=True):
    shares: int = 0
    quota: int = 0
    period: int = 0
    cpus: str = ""
    mems: str = ""


class Pids(Part, frozen=True):
    limit: int = 0


class HugepageLimit(Part, frozen=True):
    page_size: str
    limit: int


class Resources(Part, frozen=True):
    """Also what an update is given."""

    devices: tuple[DeviceRule, ...] = ()
    memory: Memory = Memory()
    cpu: Cpu = Cpu()
    pids: Pids = Pids()
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    unified: dict[str, str] = {}


class Linux(Part, frozen=True):
    namespaces: tuple[Namespace, ...] = ()
    resources: Resources = Resources()
    cgroups_path: str = ""
    devices: tuple[Device, ...] = ()
    seccomp: SeccompDocument | None = None
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    sysctl: dict[str, str] = {}
    mount_label: str = ""
    rootfs_propagation: str = ""


class Config(Part, frozen=True):
    oci_version: str
    process: Process
    root: Root
    hostname: str = ""
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks = Hooks()
    linux: Linux = Linux()
    annotations: dict[str, str] = {}


def read(text: bytes, kind: type[T], name: str) -> T:
    """Raises InvalidArgument naming the field, below `name`, that is not supported or not right."""
    try:
        return from_json(text, kind)
    except DecodeError as error:
        problem, _, path = str(error).partition(" - at `$")
        path = path.rstrip("`").removeprefix(".")
        unknown = re.fullmatch(r"Object contains unknown field `(.*)`", problem)
        if unknown is None:
            raise InvalidArgument(": ".join(filter(None, (name, path, problem)))) from None
        field = f"{path}.{unknown[1]}" if path else unknown[1]
        raise InvalidArgument(f"{name}: {field}: not supported by this runtime") from None

"""A container in the kernel's terms: the input of its plan.

Independent of CRI. Each API (CRI, later containerd's OCI specs) checks its request and resolves it into a
`ContainerSpec`; after that only the kernel can refuse something.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from phantom_cri.codec import Record
from phantom_cri.model import CompiledPolicy, InjectedHook, SelinuxLabels, User
from phantom_cri.plans import constants

Pairs = tuple[tuple[str, str], ...]


class Limit(NamedTuple):
    """Of one resource, RLIMIT_* of getrlimit(2), from `soft` up to `hard`; 2**64 - 1: none."""

    resource: int
    soft: int
    hard: int


class Process(Record, frozen=True):
    """`args`: not empty; `env`: NAME=value, each name once; `cwd`: absolute; `umask`: 0 to 0o777.

    rlimits: those that differ from the fragment's own; the last one for a resource wins.
    """

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    umask: int = 0o022
    rlimits: tuple[Limit, ...] = ()


class GivenMount(Record, frozen=True):
    """A mount as containerd and OCI specs write it; `options` as in mount(8), read by `mount_options`.

    A bind (type "bind", or an option "bind" or "rbind") and any `source` that is an absolute path are
    resolved on the host; other file systems are created in the container's namespaces. `target` is in the
    container, and created if missing. Loop devices and id mappings are not supported: such options are
    refused.
    """

    type: str
    source: str
    target: str
    options: tuple[str, ...] = ()


class OverlayRoot(Record, frozen=True):
    """`layers`: read-only folders, top first; `upper` and `work` on one file system."""

    layers: tuple[str, ...]
    upper: str
    work: str


class MountRoot(Record, frozen=True):
    """The first of `mounts` is the root, at target "" or "/"; the others are mounted in it, in their order.

    All mounts are in the container's own mount namespace: a source inside an earlier one of `mounts` is not
    found. In a pod with a user namespace the files keep their owners.
    """

    mounts: tuple[GivenMount, ...]


class Bind(NamedTuple):
    """`source` on the host, OPEN_* `how`; `target` in the container with MOUNT_ATTR_*, MS_* and ATTACH_*."""

    source: str
    target: str
    how: int = constants.OPEN_RECURSIVE
    attributes: int = 0
    propagation: int = constants.MS_PRIVATE
    flags: int = constants.ATTACH_CREATE
    stack: tuple[str, ...] = ()  # in place of `source`: read-only folders, top first, or one file
    is_mapped: bool = False  # files of the host's root are mapped to the pod's root


class HostDevice(Record, frozen=True):
    """A device node: `path` in the container, the rest as on the host; `mode` includes S_IFCHR or S_IFBLK.

    `access`: of r, w, m for the device cgroup; empty: no rule for this node.
    """

    path: str
    mode: int
    major: int
    minor: int
    uid: int = 0
    gid: int = 0
    access: str = "rwm"


class PodIds(Record, frozen=True):
    """Mapping of a user namespace: `count` ids from 0 inside are the host's from `uid` or `gid`."""

    uid: int
    uid_count: int
    gid: int
    gid_count: int

    @property
    def root(self) -> tuple[int, int]:
        return self.uid, self.gid

    def host_uid(self, inside: int) -> int | None:
        return self.uid + inside if 0 <= inside < self.uid_count else None

    def host_gid(self, inside: int) -> int | None:
        return self.gid + inside if 0 <= inside < self.gid_count else None


class Namespaces(Record, frozen=True):
    """`pid`: the container's own, its pod's, or that of the process `pid_of` (of the same fragment).

    network: its pod's, or that of the donated fd "host_network" ("host") or "network" ("given").
    host_ipc: the pod has the host's; user: the pod's ids, None for the host's.
    """

    pid: Literal["own", "pod", "target"] = "pod"
    pid_of: str = ""
    network: Literal["pod", "host", "given"] = "pod"
    host_ipc: bool = False
    user: PodIds | None = None


class Io(Record, frozen=True):
    """How the process's streams are made.

    "pipes" and "terminal": the fragment reads the output, for the donated "log", if any, and for attached
    clients. "console": a terminal whose master is returned to the caller of the start. "given": the donated
    "stdin", "stdout" and "stderr"; missing ones are /dev/null. stdin: a pipe that the fragment holds open.
    """

    streams: Literal["pipes", "terminal", "console", "given"] = "pipes"
    stdin: bool = False


class CgroupView(Record, frozen=True):
    """The content of the container's /sys/fs/cgroup.

    hierarchies: v1 and hybrid, (folder name, path of the container's cgroup on the host); empty on v2, which
    uses a cgroup namespace. links: ("cpu", "cpu,cpuacct") for controllers mounted together.
    """

    hierarchies: Pairs = ()
    links: Pairs = ()


class Hooks(Record, frozen=True):
    """OCI's createContainer hooks: programs of the host that modify the root before the container runs.

    They run in the folder `bundle` with `state` on their stdin. Plans have no other kind: prestart,
    createRuntime, poststart and poststop run in the host's namespaces and are left to the caller; a
    startContainer hook is a program of the container, which would run between start and execve.
    """

    programs: tuple[InjectedHook, ...]
    state: bytes
    bundle: str


class ContainerSpec(Record, frozen=True):
    """`mounts`: in addition to the standard ones, mounted in their order, parents first.

    replaced: standard mount points covered by a mount, which are not created.
    cgroup_view: None: no /sys/fs/cgroup.
    """

    process: Process
    user: User
    root: OverlayRoot | MountRoot
    readonly_root: bool = False
    privileged: bool = False
    io: Io = Io()
    namespaces: Namespaces = Namespaces()
    policy: CompiledPolicy = CompiledPolicy()
    mounts: tuple[Bind | GivenMount, ...] = ()
    replaced: tuple[str, ...] = ()
    devices: tuple[HostDevice, ...] = ()
    cgroup_view: CgroupView | None = None
    oom_score_adj: int = 0
    hooks: Hooks | None = None
    labels: SelinuxLabels | None = None

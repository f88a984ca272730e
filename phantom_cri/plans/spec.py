"""What a container is, in the kernel's terms: the one value that its plan is made from.

Knows no CRI. Whoever speaks a wire (CRI's requests, containerd's OCI specs) resolves what was asked for
into a `ContainerSpec`, checked; all that is left to refuse is what only the kernel can say.
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
    """`args` is never empty; `env` as NAME=value, each name once; `cwd` absolute; `umask` from 0 to 0o777.

    rlimits: those that differ from the fragment's own; the last of two for one resource counts.
    """

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    umask: int = 0o022
    rlimits: tuple[Limit, ...] = ()


class GivenMount(Record, frozen=True):
    """A mount as containerd and OCI specs write it; `options` as in mount(8), read by `mount_options`.

    A bind (type "bind", or an option "bind" or "rbind") and any `source` that is an absolute path are looked
    up on the host; other file systems are made new in the container's namespaces. `target` is in the
    container, and made when missing. Neither loop devices nor maps of ids are made: such options are refused.
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

    All of it in the container's own mount namespace: a source that needs an earlier one of `mounts` to be
    mounted on the host is not found. In a pod with a user namespace the files keep the owners that they have.
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
    is_mapped: bool = False  # what the host's root owns there belongs to the pod's


class HostDevice(Record, frozen=True):
    """A node to make: `path` in the container, the rest as on the host; `mode` carries S_IFCHR or S_IFBLK.

    `access`: of r, w, m for the device cgroup; empty: it says nothing of this node.
    """

    path: str
    mode: int
    major: int
    minor: int
    uid: int = 0
    gid: int = 0
    access: str = "rwm"


class PodIds(Record, frozen=True):
    """Of a user namespace: ids from 0 to `count` inside are the host's from `uid` or `gid` on."""

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

    network: its pod's, or what the donated "host_network" ("host") or "network" ("given") says.
    host_ipc: the pod has the host's; user: the pod's ids, None for the host's.
    """

    pid: Literal["own", "pod", "target"] = "pod"
    pid_of: str = ""
    network: Literal["pod", "host", "given"] = "pod"
    host_ipc: bool = False
    user: PodIds | None = None


class Io(Record, frozen=True):
    """How the process's streams are made.

    "pipes" and "terminal": the fragment reads what it writes, for the donated "log", if any, and for whoever
    attaches. "console": a terminal that only whoever starts the process reads. "given": the donated "stdin",
    "stdout" and "stderr"; missing ones are /dev/null. stdin: of pipes, one that the fragment holds open.
    """

    streams: Literal["pipes", "terminal", "console", "given"] = "pipes"
    stdin: bool = False


class CgroupView(Record, frozen=True):
    """What the container sees at /sys/fs/cgroup.

    hierarchies: v1 and hybrid, (folder name, path of the container's cgroup on the host); empty on v2, where
    a cgroup namespace does it. links: ("cpu", "cpu,cpuacct") for controllers mounted together.
    """

    hierarchies: Pairs = ()
    links: Pairs = ()


class Hooks(Record, frozen=True):
    """OCI's createContainer hooks: programs of the node that work on the root, before anything runs in it.

    They are run in the folder `bundle` with `state` on their stdin. Plans have no other kind: prestart,
    createRuntime, poststart and poststop run in the host's namespaces and are for whoever asks for the
    container; a startContainer hook is a program of the container, to be run between start and execve.
    """

    programs: tuple[InjectedHook, ...]
    state: bytes
    bundle: str


class ContainerSpec(Record, frozen=True):
    """`mounts`: beside the standard ones, parents before what lies in them, mounted in their order.

    replaced: standard mount points that a mount covers, so that they are not made.
    cgroup_view: None for no cgroups in sight.
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

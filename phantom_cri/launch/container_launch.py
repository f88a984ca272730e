"""All that a container's plan is made of, decided by the rooms that know, as one frozen value."""

from __future__ import annotations

from phantom_cri.codec import Record
from phantom_cri.launch.devices import HostDevice
from phantom_cri.launch.process import Process
from phantom_cri.model import (
    CompiledPolicy,
    ContainerConfig,
    ImageMount,
    InjectedHook,
    NamespaceOptions,
    SelinuxLabels,
    User,
)

Pairs = tuple[tuple[str, str], ...]


class CgroupView(Record, frozen=True):
    """What the container sees at /sys/fs/cgroup.

    hierarchies: v1 and hybrid, (folder name, path of the container's cgroup on the host); empty on v2, where
    a cgroup namespace does it. links: ("cpu", "cpu,cpuacct") for controllers mounted together.
    """

    hierarchies: Pairs = ()
    links: Pairs = ()


class ContainerLaunch(Record, frozen=True):
    """`layers`: read-only folders, top first; `upper` and `work` on one file system.

    pod_files: (path in the container, path on the host) of the pod's resolv.conf, hosts and hostname.
    volumes: the same for the image's anonymous volumes.
    hooks: programs of the node to run on the root, `hook_state` on their stdin, in the folder `bundle`.
    image_mounts: what the request's mounts of images came to, in their order.
    sandbox: the pod's namespace modes, which the container's have to fit.
    template: the fragment has /dev and /sys ready, and no container has taken them.
    hold: the process waits for `Fragment.go` right before its execve.
    pid_namespace_of: id of the process whose pid namespace is joined (pid mode TARGET), or "".
    """

    config: ContainerConfig
    process: Process
    user: User
    layers: tuple[str, ...]
    upper: str
    work: str
    policy: CompiledPolicy = CompiledPolicy()
    devices: tuple[HostDevice, ...] = ()
    pod_files: Pairs = ()
    volumes: Pairs = ()
    cgroup_view: CgroupView | None = None
    sandbox: NamespaceOptions = NamespaceOptions()
    pid_namespace_of: str = ""
    image_mounts: tuple[ImageMount, ...] = ()
    hooks: tuple[InjectedHook, ...] = ()
    hook_state: bytes = b""
    bundle: str = ""
    labels: SelinuxLabels | None = None
    hold: bool = False
    template: bool = False

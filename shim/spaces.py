"""The namespaces of a pod's fragment, and how a task's spec has to agree with them."""

from __future__ import annotations

import os
import struct

from phantom_cri import plans
from phantom_cri.errors import InvalidArgument
from shim.oci_spec import HOST, NEW, Spaces
from shim.records import Pod

FLAGS = {"network": plans.CLONE_NEWNET, "ipc": plans.CLONE_NEWIPC, "uts": plans.CLONE_NEWUTS}
_FILES = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts"}
_OF_IPC = ("kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue/")

# rtnetlink(7): RTM_NEWLINK with NLM_F_REQUEST | NLM_F_ACK, interface 1, IFF_UP.
LOOPBACK_UP = struct.pack("=IHHIIBxHiII", 32, 16, 5, 1, 0, 0, 0, 1, 1, 1)


def clone_flags(spaces: Spaces) -> int:
    """The namespaces that a fragment is started with; those that are there already it joins."""
    flags = plans.CLONE_NEWNS | (0 if spaces.pid == HOST else plans.CLONE_NEWPID)
    for kind, flag in FLAGS.items():
        flags |= flag if getattr(spaces, kind) == NEW else 0
    return flags


def to_join(spaces: Spaces) -> dict[str, str]:
    """Paths of namespaces that a pod's first task names, by kind. Raises InvalidArgument for one of pids."""
    if spaces.pid not in (HOST, NEW):
        raise InvalidArgument(
            f"linux.namespaces: pid of {spaces.pid!r}: it is not that of a task of this pod"
        )
    return {kind: getattr(spaces, kind) for kind in FLAGS if getattr(spaces, kind) not in (HOST, NEW)}


def check_identity(hostname: str, sysctls: dict[str, str], spaces: Spaces) -> None:
    """What a first task says of its pod must not be the node's. Raises InvalidArgument naming the field."""
    if hostname and spaces.uts == HOST:
        raise InvalidArgument(f"hostname: {hostname!r}: the uts namespace is the host's")
    for name in sysctls:
        own = spaces.network if name.startswith("net/") else spaces.ipc if name.startswith(_OF_IPC) else HOST
        if own == HOST:
            raise InvalidArgument(f"linux.sysctl: {name.replace('/', '.')!r}: of no namespace of the pod")


def namespaces_in(pod: Pod, wanted: Spaces) -> plans.Namespaces:
    """Where a task of `pod` runs. Raises InvalidArgument for namespaces that are none of the pod's."""
    fragment = pod.living()
    first = pod.record.spaces
    network = "pod"
    for kind in FLAGS:
        asked = getattr(wanted, kind)
        is_first = not pod.tasks and asked in (HOST, NEW)
        if is_first or asked == getattr(first, kind) != NEW or _same(asked, kind, fragment.process.pid):
            continue
        if kind != "network" or asked in (HOST, NEW):
            raise InvalidArgument(f"linux.namespaces: {kind} {asked!r}: the pod of this task has another")
        network = "given"
    shares_hosts = wanted.pid == HOST or _same(wanted.pid, "pid", fragment.process.pid)
    if shares_hosts and first.pid != HOST:
        # In the fragment's own, of which nothing here ever names a process, it would see the fragment.
        raise InvalidArgument(f"linux.namespaces: pid {wanted.pid!r}: the pod of this task has another")
    pid_of = "" if shares_hosts or wanted.pid == NEW else _owner(pod, wanted.pid)
    return plans.Namespaces(
        pid="target" if pid_of else "pod" if shares_hosts else "own",
        pid_of=pid_of,
        network="given" if network == "given" else "pod",
        host_ipc=wanted.ipc == HOST,
    )


def _owner(pod: Pod, path: str) -> str:
    """The task whose pid namespace `path` is."""
    for task in pod.tasks.values():
        if task.record.base.namespaces.pid == "own" and _same(path, "pid", task.record.init.pid):
            return task.id
    raise InvalidArgument(f"linux.namespaces: pid of {path!r}: it is not that of a task of this pod")


def _same(path: str, kind: str, pid: int) -> bool:
    if path in (HOST, NEW) or not pid:
        return False
    try:
        asked, own = os.stat(path), os.stat(f"/proc/{pid}/ns/{_FILES[kind]}")
    except OSError:
        return False
    return (asked.st_dev, asked.st_ino) == (own.st_dev, own.st_ino)

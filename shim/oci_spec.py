"""An OCI bundle's config.json → a `ContainerSpec`, and what its pod and its cgroup have to be.

What cannot be honoured is refused by the name of its field, never ignored.
"""

from __future__ import annotations

from typing import NamedTuple

from phantom_cri import cgroups, codec, plans
from phantom_cri.codec import Record, to_json
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import InjectedHook, Resources
from shim import document
from shim.oci_mounts import mounts_of, root_of
from shim.oci_process import labels_of, policy_of, process_of, user_of
from shim.oci_resources import device_rules, devices_of, resources_of

SANDBOX_ID = "io.kubernetes.cri.sandbox-id"
"""Annotation of CRI that all containers of one pod share."""

HOST, NEW = "host", "new"
# The root is on no path of the host: nothing to share it with. Mounts have what their options say.
_PROPAGATIONS = ("", *(f"{r}{kind}" for r in ("", "r") for kind in ("private", "slave", "shared")))


class Spaces(Record, frozen=True):
    """Namespaces that may be shared: each HOST, NEW, or the path of one that is there."""

    pid: str = HOST
    network: str = HOST
    ipc: str = HOST
    uts: str = HOST


class Wanted(Record, frozen=True):
    """`spec` lacks its pod's part, which only the pod knows: namespaces and the view of cgroups.

    group: what containers of one pod have in common; sysctls: by path below /proc/sys. shows_cgroup: cgroups
    are mounted in it; cgroup_namespace: it has one of its own; devices: None for all that there are;
    device_rules: the same as they were written.
    """

    spec: plans.ContainerSpec
    spaces: Spaces
    group: str
    hostname: str
    sysctls: dict[str, str]
    cgroup: str
    resources: Resources
    devices: tuple[cgroups.DeviceRule, ...] | None
    device_rules: tuple[document.DeviceRule, ...]
    shows_cgroup: bool
    cgroup_namespace: bool
    console: document.ConsoleSize | None


def read_bundle(
    text: bytes, task_id: str, bundle: str, rootfs: tuple[plans.GivenMount, ...], *, terminal: bool
) -> Wanted:
    """`text`: of config.json. terminal: as the request has it. Raises InvalidArgument naming the field."""
    config = document.read(text, document.Config, "config.json")
    linux, process = config.linux, config.process
    if not config.oci_version.startswith("1."):
        raise InvalidArgument(f"ociVersion: {config.oci_version!r}: want 1.x")
    if linux.rootfs_propagation not in _PROPAGATIONS:
        raise InvalidArgument(f"linux.rootfsPropagation: {linux.rootfs_propagation!r}: not supported")
    mounts = mounts_of(config.mounts)
    spec = plans.ContainerSpec(
        process=process_of(process, "process"),
        user=user_of(process, "process"),
        root=root_of(rootfs, config.root, bundle),
        readonly_root=config.root.readonly,
        privileged=mounts.is_writable,
        io=plans.Io("console" if terminal else "given"),
        policy=policy_of(process, linux, "process"),
        mounts=mounts.given,
        replaced=mounts.replaced,
        devices=devices_of(linux.devices),
        oom_score_adj=process.oom_score_adj,
        hooks=_hooks(config, task_id, bundle),
        labels=labels_of(process, linux),
    )
    spaces, cgroup_namespace = _namespaces(linux.namespaces)
    return Wanted(
        spec=spec,
        spaces=spaces,
        group=config.annotations.get(SANDBOX_ID) or task_id,
        hostname=config.hostname,
        sysctls={name.replace(".", "/"): value for name, value in linux.sysctl.items()},
        cgroup=_cgroup(linux.cgroups_path),
        resources=resources_of(linux.resources),
        devices=device_rules(linux.resources),
        device_rules=linux.resources.devices,
        shows_cgroup=mounts.has_cgroup,
        cgroup_namespace=cgroup_namespace,
        console=process.console_size,
    )


def _cgroup(path: str) -> str:
    if not path.startswith("/"):
        raise InvalidArgument(f"linux.cgroupsPath: {path!r}: want an absolute path")
    return path


def _namespaces(wanted: tuple[document.Namespace, ...]) -> tuple[Spaces, bool]:
    """Those that may be shared, and whether there is a cgroup namespace."""
    found = {space.type: space.path or NEW for space in wanted}
    for kind in ("mount", "cgroup"):
        if found.get(kind, NEW) != NEW:
            raise InvalidArgument(f"linux.namespaces: {kind} of {found[kind]!r}: not supported")
    if "mount" not in found:
        raise InvalidArgument("linux.namespaces: no mount: the host's is not supported")
    unknown = sorted(found.keys() - {"mount", "cgroup", *Spaces.__struct_fields__})
    if unknown:
        raise InvalidArgument(f"linux.namespaces: {unknown[0]}: not supported by this runtime")
    shared = {kind: found.get(kind, HOST) for kind in Spaces.__struct_fields__}
    return Spaces(**shared), "cgroup" in found


def _hooks(config: document.Config, task_id: str, bundle: str) -> plans.Hooks | None:
    programs = tuple(
        InjectedHook("createContainer", hook.path, hook.args, hook.env, hook.timeout)
        for hook in config.hooks.create_container
    )
    state = {
        "ociVersion": config.oci_version,
        "id": task_id,
        "status": "creating",
        "bundle": bundle,
        "annotations": config.annotations,
    }
    return plans.Hooks(programs, to_json(state), bundle) if programs else None


class Base(Record, frozen=True):
    """What an exec has of its task, whatever its own spec says."""

    namespaces: plans.Namespaces
    seccomp: bytes
    seccomp_flags: int
    oom_score_adj: int
    own_cgroup_namespace: bool


class Exec(NamedTuple):
    launch: plans.ExecLaunch
    console: document.ConsoleSize | None


def read_process(text: bytes, task_id: str, base: Base, *, terminal: bool) -> Exec:
    """A further process in a task. Raises InvalidArgument naming the field."""
    wanted = document.read(text, document.Process, "spec")
    policy = policy_of(wanted, document.Linux(), "spec")
    launch = plans.ExecLaunch(
        container_id=task_id,
        process=process_of(wanted, "spec"),
        user=user_of(wanted, "spec"),
        policy=codec.replace(policy, seccomp=base.seccomp, seccomp_flags=base.seccomp_flags),
        own_pid_namespace=base.namespaces.pid in ("own", "target"),
        own_cgroup_namespace=base.own_cgroup_namespace,
        own_network=base.namespaces.network == "given",
        oom_score_adj=base.oom_score_adj,
        tty=terminal,
        keep=True,
        labels=labels_of(wanted, document.Linux()),
    )
    return Exec(launch, wanted.console_size)

"""The plan of a container: from its request to the ops that make it.

Sources are opened in the host's mount namespace, gathered as detached mounts, carried into a new mount
namespace made from the fragment's, and hung into the container's root there. So no path of the host is walked
after the first step, and none of the container's on the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from phantom_cri.launch import bits
from phantom_cri.launch.container_launch import CgroupView, ContainerLaunch
from phantom_cri.launch.credentials import credentials
from phantom_cri.launch.devices import dev_block
from phantom_cri.launch.mounts import Bind, binds
from phantom_cri.launch.op import Op
from phantom_cri.launch.ops import (
    Attach,
    CgroupProcs,
    Exec,
    ExecLabel,
    FilesAsRoot,
    Hook,
    Host,
    JoinHome,
    JoinNs,
    JoinUser,
    MapIds,
    Mask,
    Mkdir,
    MountLabel,
    OomScore,
    OpenTree,
    Overlay,
    OverlayMapped,
    Pivot,
    Readonly,
    Remount,
    Root,
    Unshare,
)
from phantom_cri.launch.paths import covers, depth
from phantom_cri.launch.plan import Block, Plan, Slots
from phantom_cri.launch.standard import (
    CGROUP,
    SHM,
    TEMPLATE_MOUNTS,
    TERMINALS,
    Shape,
    cgroup_attributes,
    covered_by,
    finished_cgroup,
    fits_template,
    standard_mounts,
    taken_mounts,
)
from phantom_cri.launch.user_namespace import pod_ids
from phantom_cri.model import SelinuxLabels

HOST_MOUNTS = "host_mounts"
CGROUP_FD = "cgroup"
PROCS = "procs"
LOG = "log"
KILL = "kill"
OOM = "oom"
STDIO = ("stdin", "stdout", "stderr")

Parts = list[Op | Block]

_NOTHING = (Block(), Block())


def container_plan(launch: ContainerLaunch, donated: Sequence[str]) -> Plan:
    """`donated`: names of the fds that will travel along, out of "host_mounts" (the mount namespace that host
    paths are meant in; always), "cgroup" (for CLONE_INTO_CGROUP), "procs0"… (files to write "0" to), "log",
    "kill", "oom".

    Raises InvalidArgument naming the field and the value.
    """
    modes = launch.config.security.namespaces
    slots = Slots(donated)
    flags = bits.PLAN_LOG if not launch.config.tty else bits.PLAN_TTY | bits.PLAN_LOG
    if launch.config.stdin:
        flags |= bits.PLAN_STDIN
    if launch.hold:
        flags |= bits.PLAN_HOLD
    if modes.pid != "container":
        flags |= bits.PLAN_KILL_REST
    return Plan(
        parts=(*_parts(launch, slots, donated),),
        kind=bits.KIND_CONTAINER,
        flags=flags,
        donated=tuple(donated),
        clone_flags=bits.CLONE_NEWPID if modes.pid == "container" else 0,
        cgroup=_if_donated(CGROUP_FD, donated),
        log=_if_donated(LOG, donated),
        kill=_if_donated(KILL, donated),
        oom=_if_donated(OOM, donated),
        pid_namespace_of=launch.pid_namespace_of if modes.pid == "target" else "",
    )


def _if_donated(name: str, donated: Sequence[str]) -> str:
    return name if name in donated else ""


def _parts(launch: ContainerLaunch, slots: Slots, donated: Sequence[str]) -> Parts:
    config, process, policy = launch.config, launch.process, launch.policy
    ids = pod_ids(launch.sandbox)
    pod_root = ids.root if ids else (0, 0)
    shape = _shape(launch)
    take = launch.template and wants_template(launch)
    standard = standard_mounts(shape, slots.next, take)
    slots.take(standard.used)
    before_root, after_root = taken_mounts(slots.take(len(TEMPLATE_MOUNTS))) if take else _NOTHING
    root = slots.take()
    sources: Parts = []
    placed: Parts = []
    if standard.has_cgroup and shape.cgroup == "v1":
        _place(_hierarchies(launch), slots, sources, placed)
        placed.append(_finished_cgroup(launch))
    _place(_asked(launch), slots, sources, placed, _overlay(launch))
    hooked = _hooks(launch, slots, sources) if launch.hooks else ()
    return [
        entering(config.resources.oom_score_adj, procs_slots(donated)),
        JoinNs(slots[HOST_MOUNTS], bits.CLONE_NEWNS),
        *([MountLabel(launch.labels.mount)] if launch.labels else []),
        # Overlays are the last of the sources: on old kernels they leave the host's mount namespace.
        *sorted(sources, key=lambda source: isinstance(source, Overlay)),
        _overlay(launch)(root, launch.layers, launch.upper, launch.work),
        _own_namespaces(shape.cgroup == "v2" and not shape.privileged),
        *([FilesAsRoot()] if ids else []),
        before_root,
        Root(root),
        after_root,
        standard.sources,
        standard.attach,
        *([dev_block(launch.devices, pod_root)] if standard.has_dev else []),
        *placed,
        *([Mkdir(process.cwd, 0o755, *pod_root)] if process.cwd != "/" else []),
        *hooked,
        # Not earlier: the hooks would be confined too. Not later: only the fragment's own /proc is trusted.
        labelled(policy.apparmor, launch.labels),
        _closing(policy.masked_paths, policy.readonly_paths, config.security.readonly_rootfs),
        *([_entered_user(shape.cgroup == "v2" and not shape.privileged)] if ids else []),
        credentials(policy, launch.user, process.cwd),
        Exec(process.args[0], process.args, process.env),
    ]


def _hooks(launch: ContainerLaunch, slots: Slots, sources: Parts) -> list[Op]:
    """Before anything is masked, as runc runs them: they see the root as its image and mounts made it."""
    host = slots.take()
    sources.append(OpenTree(host, "/", bits.OPEN_RECURSIVE))
    runs = [
        Hook(hook.path, launch.hook_state, hook.args or (hook.path,), hook.env, hook.timeout)
        for hook in launch.hooks
    ]
    return [Host(host, launch.bundle), *runs]


def wants_template(launch: ContainerLaunch) -> bool:
    """Whether the container's plan takes the fragment's template when it is given one."""
    return fits_template(_shape(launch)) and not launch.devices and not launch.labels


def _shape(launch: ContainerLaunch) -> Shape:
    view = launch.cgroup_view
    ids = pod_ids(launch.sandbox)
    return Shape(
        privileged=launch.config.security.privileged,
        host_ipc=launch.sandbox.ipc == "node",
        cgroup="" if view is None else "v1" if view.hierarchies else "v2",
        covered=covered_by(bind.target for bind in binds(launch.config)),
        terminals=ids.host_gid(TERMINALS) if ids else TERMINALS,
    )


def _overlay(launch: ContainerLaunch) -> type[Overlay]:
    return OverlayMapped if launch.sandbox.user == "pod" else Overlay


def _place(
    wanted: Iterable[Bind], slots: Slots, sources: Parts, placed: Parts, overlay: type[Overlay] = Overlay
) -> None:
    for bind in wanted:
        slot = slots.take()
        if bind.stack:
            sources.append(overlay(slot, bind.stack, "", ""))
        else:
            sources.append(OpenTree(slot, bind.source, bind.how))
            if bind.is_mapped:
                sources.append(MapIds(slot))
        placed.append(Attach(slot, bind.target, bind.attributes, bind.propagation, bind.flags))


def _asked(launch: ContainerLaunch) -> list[Bind]:
    """The pod's files, the image's volumes and the request's mounts: a parent before what lies in it."""
    asked = binds(launch.config, launch.image_mounts)
    targets = {bind.target for bind in asked}
    read_only = bits.MOUNT_ATTR_RDONLY if launch.config.security.readonly_rootfs else 0
    found = [
        Bind(source, target, 0, read_only) for target, source in launch.pod_files if target not in targets
    ]
    is_mapped = launch.sandbox.user == "pod"
    found += [Bind(source, target, is_mapped=is_mapped) for target, source in launch.volumes]
    if launch.sandbox.ipc == "node" and not any(covers(target, SHM) for target in targets):
        found.append(Bind(SHM, SHM))
    return sorted(found + asked, key=lambda bind: depth(bind.target))


def _hierarchies(launch: ContainerLaunch) -> list[Bind]:
    view = launch.cgroup_view or CgroupView()
    attributes = cgroup_attributes(launch.config.security.privileged)
    return [Bind(path, f"{CGROUP}/{name}", 0, attributes) for name, path in view.hierarchies]


def _finished_cgroup(launch: ContainerLaunch) -> Block:
    links = launch.cgroup_view.links if launch.cgroup_view else ()
    return finished_cgroup(links, launch.config.security.privileged)


def procs_slots(donated: Sequence[str]) -> tuple[int, ...]:
    return tuple([slot for slot, name in enumerate(donated) if name.startswith(PROCS)])


@lru_cache(maxsize=256)
def entering(oom_score: int, procs: tuple[int, ...]) -> Block:
    """First of all, while the fragment's own /proc is there to write to."""
    return Block(OomScore(oom_score), *[CgroupProcs(slot) for slot in procs])


@lru_cache(maxsize=256)
def labelled(apparmor: str, labels: SelinuxLabels | None) -> Block:
    """What the next execve leads into, of each security module that says; by the fragment's own /proc."""
    names = {"apparmor": apparmor, "selinux": labels.process if labels else ""}
    return Block(*[ExecLabel(module, name) for module, name in names.items() if name])


@lru_cache(maxsize=2)
def _own_namespaces(cgroup: bool) -> Block:
    new = bits.CLONE_NEWNS | (bits.CLONE_NEWCGROUP if cgroup else 0)
    return Block(JoinHome(bits.CLONE_NEWNS), Unshare(new))


@lru_cache(maxsize=2)
def _entered_user(cgroup: bool) -> Block:
    """Into the user namespace, and into a mount namespace that it owns: a copy of the finished one.

    What a more privileged mount namespace brought along cannot be taken off there, nor made less strict
    (mount_namespaces(7), "Restrictions on mount namespaces"): masks and read-only mounts hold even against
    a root with CAP_SYS_ADMIN.
    """
    return Block(JoinUser(), Unshare(bits.CLONE_NEWNS | (bits.CLONE_NEWCGROUP if cgroup else 0)))


@lru_cache(maxsize=64)
def _closing(masked: tuple[str, ...], readonly: tuple[str, ...], root_readonly: bool) -> Block:
    masks = [Mask(path) for path in masked]
    root = [Remount("/", bits.MOUNT_ATTR_RDONLY)] if root_readonly else []
    return Block(*masks, *[Readonly(path) for path in readonly], *root, Pivot())

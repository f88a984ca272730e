"""The plan of a container: from its spec to the ops that make it.

Sources are opened in the host's mount namespace as detached mounts, carried into a new mount namespace made
from the fragment's, and attached to the container's root there. So host paths are only resolved in the first
step, and container paths never on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from phantom_cri.model import SelinuxLabels
from phantom_cri.plans import constants
from phantom_cri.plans.credentials import credentials, limited
from phantom_cri.plans.devices import dev_block
from phantom_cri.plans.mounts import Mounts, Parts
from phantom_cri.plans.op import Op
from phantom_cri.plans.ops import (
    CgroupProcs,
    Exec,
    ExecLabel,
    FilesAsRoot,
    Hook,
    Host,
    JoinFragment,
    JoinNs,
    JoinUser,
    Mask,
    Mkdir,
    MountLabel,
    OomScore,
    OpenTree,
    Pivot,
    Readonly,
    Remount,
    Unshare,
)
from phantom_cri.plans.plan import Block, Plan, Slots
from phantom_cri.plans.spec import Bind, CgroupView, ContainerSpec, Hooks, Io, Namespaces
from phantom_cri.plans.standard import (
    CGROUP,
    TEMPLATE_MOUNTS,
    TERMINALS,
    Shape,
    cgroup_attributes,
    finished_cgroup,
    fits_template,
    standard_mounts,
    taken_mounts,
)

HOST_MOUNTS = "host_mounts"
CGROUP_FD = "cgroup"
PROCS = "procs"
LOG = "log"
KILL = "kill"
OOM = "oom"
STDIO = ("stdin", "stdout", "stderr")
NETWORKS = {"host": "host_network", "given": "network"}

_NOTHING = (Block(), Block())


def container_plan(
    spec: ContainerSpec, donated: Sequence[str], *, hold: bool = False, template: bool = False
) -> Plan:
    """`donated`: names of the fds sent with the plan, out of "host_mounts" (the mount namespace in which host
    paths are resolved; always), "cgroup" (for CLONE_INTO_CGROUP), "procs0"… (files to write "0" to), "log",
    "kill", "oom"; if the spec says so "stdin", "stdout", "stderr", and "network" or "host_network".

    hold: the process waits for `FragmentClient.go` right before its execve. template: it uses /dev and /sys
    prepared by the fragment (see `wants_template`). Raises InvalidArgument for more mounts than a plan can
    have, and for invalid given mounts.
    """
    slots = Slots(donated)
    flags = _stream_flags(spec.io)
    if hold:
        flags |= constants.PLAN_HOLD
    if spec.namespaces.pid != "own":
        flags |= constants.PLAN_KILL_REST
    return Plan(
        parts=(*_parts(spec, slots, donated, template),),
        kind=constants.KIND_CONTAINER,
        flags=flags,
        donated=tuple(donated),
        clone_flags=constants.CLONE_NEWPID if spec.namespaces.pid == "own" else 0,
        cgroup=_if_donated(CGROUP_FD, donated),
        log=_if_donated(LOG, donated),
        kill=_if_donated(KILL, donated),
        oom=_if_donated(OOM, donated),
        stdio=given_streams(donated) if spec.io.streams == "given" else ("", "", ""),
        pid_namespace_of=spec.namespaces.pid_of,
    )


def _if_donated(name: str, donated: Sequence[str]) -> str:
    return name if name in donated else ""


def _stream_flags(io: Io) -> int:
    flags = {
        "pipes": constants.PLAN_LOG,
        "terminal": constants.PLAN_TTY | constants.PLAN_LOG,
        "console": constants.PLAN_TTY | constants.PLAN_UNREAD,
        "given": 0,
    }[io.streams]
    return flags | (constants.PLAN_STDIN if io.stdin else 0)


def given_streams(donated: Sequence[str]) -> tuple[str, str, str]:
    stdin, stdout, stderr = (_if_donated(name, donated) for name in STDIO)
    return stdin, stdout, stderr


def _parts(spec: ContainerSpec, slots: Slots, donated: Sequence[str], take: bool) -> Parts:
    process, policy, ids = spec.process, spec.policy, spec.namespaces.user
    pod_root = ids.root if ids else (0, 0)
    shape = _shape(spec)
    own_cgroup = shape.cgroup == "v2" and not spec.privileged
    standard = standard_mounts(shape, slots.next, take)
    slots.take(standard.used)
    before_root, after_root = taken_mounts(slots.take(len(TEMPLATE_MOUNTS))) if take else _NOTHING
    root = slots.take()
    mounts = Mounts(slots, is_mapped=ids is not None)
    if standard.has_cgroup and spec.cgroup_view and spec.cgroup_view.hierarchies:
        mounts.place(_hierarchies(spec.cgroup_view, spec.privileged))
        mounts.placed.append(finished_cgroup(spec.cgroup_view.links, spec.privileged))
    mounts.place(spec.mounts)
    mounts.make_root(spec.root, root)
    hooked = _hooks(spec.hooks, slots, mounts.sources) if spec.hooks else ()
    return [
        entering(spec.oom_score_adj, procs_slots(donated)),
        *_network(spec.namespaces, slots),
        JoinNs(slots[HOST_MOUNTS], constants.CLONE_NEWNS),
        *([MountLabel(spec.labels.mount)] if spec.labels else []),
        *mounts.sources,
        *mounts.overlays,
        _own_namespaces(own_cgroup),
        *([FilesAsRoot()] if ids else []),
        before_root,
        *mounts.root,
        after_root,
        standard.sources,
        standard.attach,
        *([dev_block(spec.devices, pod_root)] if standard.has_dev else []),
        *mounts.placed,
        *([Mkdir(process.cwd, 0o755, *pod_root)] if process.cwd != "/" else []),
        *hooked,
        # Not earlier: the hooks would be confined too. Not later: only the fragment's own /proc is trusted.
        labelled(policy.apparmor, spec.labels),
        _closing(policy.masked_paths, policy.readonly_paths, spec.readonly_root),
        limited(process.rlimits),
        *([_entered_user(own_cgroup)] if ids else []),
        credentials(policy, spec.user, process.cwd, process.umask),
        Exec(process.args[0], process.args, process.env),
    ]


def _network(namespaces: Namespaces, slots: Slots) -> list[Op]:
    if namespaces.network == "pod":
        return []
    return [JoinNs(slots[NETWORKS[namespaces.network]], constants.CLONE_NEWNET)]


def _hooks(hooks: Hooks, slots: Slots, sources: Parts) -> list[Op]:
    """Run before paths are masked, as in runc: hooks see the root as built from image and mounts."""
    host = slots.take()
    sources.append(OpenTree(host, "/", constants.OPEN_RECURSIVE))
    runs = [
        Hook(each.path, hooks.state, each.args or (each.path,), each.env, each.timeout)
        for each in hooks.programs
    ]
    return [Host(host, hooks.bundle), *runs]


def wants_template(spec: ContainerSpec) -> bool:
    """Whether the container can use the fragment's template."""
    # The template's /sys shows the pod's network.
    is_usual = spec.namespaces.network == "pod" and not spec.devices and not spec.labels
    return is_usual and fits_template(_shape(spec))


def _shape(spec: ContainerSpec) -> Shape:
    view, ids = spec.cgroup_view, spec.namespaces.user
    return Shape(
        privileged=spec.privileged,
        host_ipc=spec.namespaces.host_ipc,
        cgroup="" if view is None else "v1" if view.hierarchies else "v2",
        covered=spec.replaced,
        terminals=ids.host_gid(TERMINALS) if ids else TERMINALS,
    )


def _hierarchies(view: CgroupView, privileged: bool) -> list[Bind]:
    attributes = cgroup_attributes(privileged)
    return [Bind(path, f"{CGROUP}/{name}", 0, attributes) for name, path in view.hierarchies]


def procs_slots(donated: Sequence[str]) -> tuple[int, ...]:
    return tuple([slot for slot, name in enumerate(donated) if name.startswith(PROCS)])


@lru_cache(maxsize=256)
def entering(oom_score: int, procs: tuple[int, ...]) -> Block:
    """Comes first, while the fragment's own /proc is available to write to."""
    return Block(OomScore(oom_score), *[CgroupProcs(slot) for slot in procs])


@lru_cache(maxsize=256)
def labelled(apparmor: str, labels: SelinuxLabels | None) -> Block:
    """Labels for the next execve, one per active security module; written to the fragment's own /proc."""
    names = {"apparmor": apparmor, "selinux": labels.process if labels else ""}
    return Block(*[ExecLabel(module, name) for module, name in names.items() if name])


@lru_cache(maxsize=2)
def _own_namespaces(cgroup: bool) -> Block:
    new = constants.CLONE_NEWNS | (constants.CLONE_NEWCGROUP if cgroup else 0)
    return Block(JoinFragment(constants.CLONE_NEWNS), Unshare(new))


@lru_cache(maxsize=2)
def _entered_user(cgroup: bool) -> Block:
    """Enter the user namespace, and a mount namespace that it owns: a copy of the finished one.

    Mounts copied from a more privileged mount namespace can be neither unmounted nor made less strict
    (mount_namespaces(7), "Restrictions on mount namespaces"): masks and read-only mounts stay effective even
    for a root with CAP_SYS_ADMIN.
    """
    return Block(JoinUser(), Unshare(constants.CLONE_NEWNS | (constants.CLONE_NEWCGROUP if cgroup else 0)))


@lru_cache(maxsize=64)
def _closing(masked: tuple[str, ...], readonly: tuple[str, ...], root_readonly: bool) -> Block:
    masks = [Mask(path) for path in masked]
    root = [Remount("/", constants.MOUNT_ATTR_RDONLY)] if root_readonly else []
    return Block(*masks, *[Readonly(path) for path in readonly], *root, Pivot())

"""The plan of an exec: another process in a running container, in the namespaces of its first process."""

from __future__ import annotations

from collections.abc import Sequence

from phantom_cri.codec import Record
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import CompiledPolicy, SelinuxLabels, User
from phantom_cri.plans import constants
from phantom_cri.plans.container_plan import (
    CGROUP_FD,
    KILL,
    OOM,
    entering,
    given_streams,
    labelled,
    procs_slots,
)
from phantom_cri.plans.credentials import credentials, limited
from phantom_cri.plans.ops import Exec, JoinProcess, JoinUser
from phantom_cri.plans.plan import Plan
from phantom_cri.plans.spec import Process


class ExecLaunch(Record, frozen=True):
    """`process`: of the exec. own_*: the container has its own namespace instead of its pod's.

    user_namespace: its pod has one. tty: its terminal's master is returned to the caller of the start. keep:
    it can be queried later: `get` returns the terminal again, and after its end its entry stays until
    `forget`.
    """

    container_id: str
    process: Process
    user: User
    policy: CompiledPolicy = CompiledPolicy()
    own_pid_namespace: bool = False
    own_cgroup_namespace: bool = False
    own_network: bool = False
    user_namespace: bool = False
    oom_score_adj: int = 0
    tty: bool = False
    keep: bool = False
    labels: SelinuxLabels | None = None


def exec_plan(launch: ExecLaunch, donated: Sequence[str]) -> Plan:
    """`donated`: out of "cgroup", "procs0"…, "kill", "oom", "stdin", "stdout", "stderr" (missing: /dev/null).

    Raises InvalidArgument naming the field and the value.
    """
    process = launch.process
    command = checked(process.args)
    return Plan(
        parts=(
            entering(launch.oom_score_adj, procs_slots(donated)),
            labelled(launch.policy.apparmor, launch.labels),
            JoinProcess(launch.container_id, _joined(launch)),
            limited(process.rlimits),
            *([JoinUser()] if launch.user_namespace else []),
            credentials(launch.policy, launch.user, process.cwd, process.umask),
            Exec(command[0], command, process.env),
        ),
        kind=constants.KIND_EXEC,
        flags=_flags(launch),
        donated=tuple(donated),
        cgroup=CGROUP_FD if CGROUP_FD in donated else "",
        kill=KILL if KILL in donated else "",
        oom=OOM if OOM in donated else "",
        stdio=given_streams(donated),
        pid_namespace_of=launch.container_id if launch.own_pid_namespace else "",
    )


def _flags(launch: ExecLaunch) -> int:
    flags = constants.PLAN_TTY if launch.tty else 0
    if launch.keep:
        flags |= constants.PLAN_KEEP | (constants.PLAN_UNREAD if launch.tty else 0)
    return flags


def _joined(launch: ExecLaunch) -> int:
    cgroup = constants.CLONE_NEWCGROUP if launch.own_cgroup_namespace else 0
    return constants.CLONE_NEWNS | cgroup | (constants.CLONE_NEWNET if launch.own_network else 0)


def checked(command: tuple[str, ...]) -> tuple[str, ...]:
    """Raises InvalidArgument for a command that cannot be executed."""
    if not command or not command[0]:
        raise InvalidArgument(f"cmd: {list(command)} names no program")
    for index, argument in enumerate(command):
        if "\0" in argument:
            raise InvalidArgument(f"cmd: argument {index} {argument!r} has a NUL byte")
    return command

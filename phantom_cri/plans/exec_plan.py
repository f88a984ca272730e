"""The plan of an exec: a further process in a running container, with what its first process has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from phantom_cri.codec import Record
from phantom_cri.errors import InvalidArgument
from phantom_cri.model import CompiledPolicy, SelinuxLabels, User
from phantom_cri.plans import constants
from phantom_cri.plans.container_plan import (
    CGROUP_FD,
    KILL,
    OOM,
    STDIO,
    entering,
    labelled,
    procs_slots,
)
from phantom_cri.plans.credentials import credentials
from phantom_cri.plans.ops import Exec, JoinProcess, JoinUser
from phantom_cri.plans.plan import Plan
from phantom_cri.plans.spec import Process


class ExecLaunch(Record, frozen=True):
    """`process`, `user`, `policy`: the container's. `own_pid_namespace`: its pid mode is CONTAINER.

    user_namespace: its pod has one.
    """

    container_id: str
    command: tuple[str, ...]
    process: Process
    user: User
    policy: CompiledPolicy = CompiledPolicy()
    own_pid_namespace: bool = False
    own_cgroup_namespace: bool = False
    user_namespace: bool = False
    oom_score_adj: int = 0
    tty: bool = False
    labels: SelinuxLabels | None = None


def exec_plan(launch: ExecLaunch, donated: Sequence[str]) -> Plan:
    """`donated`: out of "cgroup", "procs0"…, "kill", "oom", "stdin", "stdout", "stderr" (missing: /dev/null).

    Raises InvalidArgument naming the field and the value.
    """
    process = launch.process
    namespaces = constants.CLONE_NEWNS | (constants.CLONE_NEWCGROUP if launch.own_cgroup_namespace else 0)
    stdin, stdout, stderr = (name if name in donated else "" for name in STDIO)
    return Plan(
        parts=(
            entering(launch.oom_score_adj, procs_slots(donated)),
            labelled(launch.policy.apparmor, launch.labels),
            JoinProcess(launch.container_id, namespaces),
            *([JoinUser()] if launch.user_namespace else []),
            credentials(launch.policy, launch.user, process.cwd),
            Exec(checked(launch.command)[0], launch.command, _environment(launch)),
        ),
        kind=constants.KIND_EXEC,
        flags=constants.PLAN_TTY if launch.tty else 0,
        donated=tuple(donated),
        cgroup=CGROUP_FD if CGROUP_FD in donated else "",
        kill=KILL if KILL in donated else "",
        oom=OOM if OOM in donated else "",
        stdio=(stdin, stdout, stderr),
        pid_namespace_of=launch.container_id if launch.own_pid_namespace else "",
    )


def checked(command: tuple[str, ...]) -> tuple[str, ...]:
    """Raises InvalidArgument for a command that nothing can execute."""
    if not command or not command[0]:
        raise InvalidArgument(f"cmd: {list(command)} names no program")
    for index, argument in enumerate(command):
        if "\0" in argument:
            raise InvalidArgument(f"cmd: argument {index} {argument!r} has a NUL byte")
    return command


def with_terminal(env: Iterable[str]) -> tuple[str, ...]:
    """`env` for an exec with a tty: TERM is xterm unless the container says otherwise."""
    found = tuple(env)
    return found if any(text.startswith("TERM=") for text in found) else (*found, "TERM=xterm")


def _environment(launch: ExecLaunch) -> tuple[str, ...]:
    return with_terminal(launch.process.env) if launch.tty else launch.process.env

"""Which verb is allowed in which state, and the next state: one table.

A missing pair is refused with FailedPrecondition naming both. Stop and Remove are allowed in every state: in
CRI they are idempotent.
"""

from __future__ import annotations

from typing import Literal

from phantom_cri.errors import FailedPrecondition
from phantom_cri.model import ContainerState, SandboxState

ContainerVerb = Literal[
    "start", "exec", "attach", "update", "reopen log", "checkpoint", "stop", "exit", "remove"
]
SandboxVerb = Literal["create container in", "start container in", "stop", "die"]

CONTAINER: dict[tuple[ContainerState, ContainerVerb], ContainerState] = {
    ("created", "start"): "running",
    ("created", "update"): "created",
    ("created", "stop"): "created",
    ("created", "exit"): "exited",
    ("created", "remove"): "exited",
    ("running", "exec"): "running",
    ("created", "attach"): "created",
    ("running", "attach"): "running",
    ("running", "update"): "running",
    ("running", "reopen log"): "running",
    ("running", "checkpoint"): "running",
    ("running", "stop"): "exited",
    ("running", "exit"): "exited",
    ("running", "remove"): "exited",
    ("exited", "stop"): "exited",
    ("exited", "exit"): "exited",
    ("exited", "remove"): "exited",
    ("unknown", "stop"): "exited",
    ("unknown", "exit"): "exited",
    ("unknown", "remove"): "exited",
}

SANDBOX: dict[tuple[SandboxState, SandboxVerb], SandboxState] = {
    ("ready", "create container in"): "ready",
    ("ready", "start container in"): "ready",
    ("ready", "stop"): "notready",
    ("ready", "die"): "notready",
    ("notready", "stop"): "notready",
    ("notready", "die"): "notready",
}


def next_container_state(state: ContainerState, verb: ContainerVerb, container_id: str) -> ContainerState:
    """The state after `verb`. Raises FailedPrecondition."""
    try:
        return CONTAINER[state, verb]
    except KeyError:
        raise FailedPrecondition(f"cannot {verb} container {container_id}: it is {state}") from None


def next_sandbox_state(state: SandboxState, verb: SandboxVerb, sandbox_id: str) -> SandboxState:
    try:
        return SANDBOX[state, verb]
    except KeyError:
        raise FailedPrecondition(f"cannot {verb} pod sandbox {sandbox_id}: it is {state}") from None

"""The state table is complete for what must always succeed, and refuses by name."""

from __future__ import annotations

from typing import get_args

import pytest

from phantom_cri.errors import FailedPrecondition
from phantom_cri.lifecycle import states
from phantom_cri.model import ContainerState, SandboxState


@pytest.mark.parametrize("state", ["running", "exited", "unknown"])
def test_a_container_starts_only_once(state: ContainerState) -> None:
    with pytest.raises(FailedPrecondition, match=f"cannot start container c1: it is {state}"):
        states.next_container_state(state, "start", "c1")


@pytest.mark.parametrize("state", ["created", "exited", "unknown"])
def test_exec_needs_a_running_container(state: ContainerState) -> None:
    with pytest.raises(FailedPrecondition, match=f"cannot exec container c1: it is {state}"):
        states.next_container_state(state, "exec", "c1")


@pytest.mark.parametrize("verb", ["create container in", "start container in"])
def test_a_stopped_pod_takes_no_containers(verb: states.SandboxVerb) -> None:
    with pytest.raises(FailedPrecondition, match=f"cannot {verb} pod sandbox p1: it is notready"):
        states.next_sandbox_state("notready", verb, "p1")


def test_stop_exit_and_remove_are_legal_in_every_state() -> None:
    for state in get_args(ContainerState):
        for verb in ("stop", "exit", "remove"):
            states.next_container_state(state, verb, "c1")
    for sandbox_state in get_args(SandboxState):
        assert states.next_sandbox_state(sandbox_state, "stop", "p1") == "notready"


def test_no_way_leads_back() -> None:
    order = {"created": 0, "running": 1, "unknown": 1, "exited": 2}
    assert all(order[after] >= order[before] for (before, _), after in states.CONTAINER.items())

"""A machine that loses its power under running pods, and what its next boot knows of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness.tools import ROOT
from tests.e2e.vm.kernels import RELEASES, kernel
from tests.e2e.vm.machine import Machine

pytestmark = [pytest.mark.root, pytest.mark.vm]


@pytest.fixture(params=RELEASES)
def machine(request: pytest.FixtureRequest, short_folder: Path) -> Iterator[Machine]:
    folder = short_folder / f"reset-{request.param}"
    folder.mkdir()
    with Machine(kernel(request.param), folder) as machine:
        yield machine


def step(machine: Machine, name: str) -> Any:
    command = (
        f"mkdir -p /disk && mount /dev/vda /disk && cd {ROOT} && CI=1 PYTHONPATH={ROOT} "
        f"PHANTOM_TEST_PATIENCE=10 .venv/bin/python -m tests.e2e.vm.job {name} /disk"
    )
    code, said = machine.run(command, 600.0)
    assert code == 0, said[-20_000:]
    return json.loads(said.splitlines()[-1])


def test_a_job_that_was_done_is_done(machine: Machine) -> None:
    code, said = machine.run("mkfs.ext4 -q /dev/vda")
    assert code == 0, said
    before = step(machine, "begin")
    assert (before["job"]["exit_code"], before["failed"]["exit_code"]) == (0, 3)
    assert before["running"]["state"] == "CONTAINER_RUNNING"

    machine.reset()
    after = step(machine, "look")

    containers = after["containers"]
    assert set(containers) == {one["id"] for one in before.values()}
    for name in ("job", "failed", "created"):
        assert containers[before[name]["id"]] == before[name], name
    ran = containers[before["running"]["id"]]
    assert (ran["state"], ran["exit_code"], ran["reason"]) == ("CONTAINER_EXITED", 255, "Unknown")
    assert after["pods"] == ["SANDBOX_NOTREADY"]
    assert after["again"]["exit_code"] == 4, "the image has come through it too"

"""A machine that loses its power under running pods, and what its next boot knows of them."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from harness.tools import ROOT
from harness.waiting import wait_until
from tests.e2e.vm.job import ON_DISK_S
from tests.e2e.vm.kernels import RELEASES, kernel
from tests.e2e.vm.machine import Machine

pytestmark = [pytest.mark.root, pytest.mark.vm]


@pytest.fixture(scope="module", params=RELEASES)
def machine(request: pytest.FixtureRequest, short_folder: Path) -> Iterator[Machine]:
    folder = short_folder / f"reset-{request.param}"
    folder.mkdir()
    with Machine(kernel(request.param), folder) as machine:
        code, said = machine.run("mkfs.ext4 -q /dev/vda")
        assert code == 0, said
        yield machine


def command(name: str) -> str:
    return (
        f"mkdir -p /disk && {{ mountpoint -q /disk || mount /dev/vda /disk; }} && cd {ROOT} && CI=1 "
        f"PYTHONPATH={ROOT} PHANTOM_TEST_PATIENCE=10 .venv/bin/python -m tests.e2e.vm.job {name} /disk"
    )


def step(machine: Machine, name: str) -> Any:
    code, said = machine.run(command(name), 600.0)
    assert code == 0, said[-20_000:]
    return json.loads(said.splitlines()[-1])


def test_a_job_that_was_done_is_done(machine: Machine) -> None:
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


@pytest.mark.parametrize("number", range(2))
def test_what_was_told_stays_true(machine: Machine, number: int) -> None:
    """The plug is pulled while pods come and go. After the test above: the image is on the disk."""
    machine.reset()
    told = until_the_plug_is_pulled(machine)
    machine.reset()
    found = step(machine, "look")["containers"]
    last = told[-1]["at"]
    removing = {one["id"] for one in told if one["what"] == "removing"}
    exits = [one for one in told if one["what"] == "exited" and one["at"] < last - ON_DISK_S]
    assert len(exits) > 3, told
    for one in exits:
        if one["id"] not in removing:
            known = {name: one[name] for name in ("id", "state", "exit_code", "reason", "finished_at")}
            assert found[one["id"]] == known
    for one in told:
        if one["what"] == "removed" and one["at"] < last - ON_DISK_S:
            assert one["id"] not in found
    assert {one["state"] for one in found.values()} <= {"CONTAINER_EXITED", "CONTAINER_CREATED"}


def until_the_plug_is_pulled(machine: Machine) -> list[Any]:
    """What clients were told in the machine, for a while from the first answer on."""
    output: list[bytes] = []

    def pull() -> None:
        wait_until(lambda: b'"what"' in b"".join(output), "the first answer", 300)
        time.sleep(random.uniform(8.0, 20.0))
        machine.pull_plug()

    with ThreadPoolExecutor(1) as threads:
        pulled = threads.submit(pull)
        with pytest.raises(ConnectionError):
            machine.run(command("churn"), 600.0, output)
        pulled.result()
    lines = b"".join(output).decode().splitlines()
    return [json.loads(line) for line in lines if line.startswith('{"what"') and line.endswith("}")]

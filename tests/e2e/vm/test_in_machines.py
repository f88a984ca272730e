"""The project's own tests, run where cgroup v2 rules alone, systemd is process 1 and AppArmor is on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness.tools import ROOT
from tests.e2e.vm.kernels import RELEASES, kernel
from tests.e2e.vm.machine import Machine

pytestmark = [pytest.mark.root, pytest.mark.vm]

GROUP_S = 1800.0
"""Seconds for one group of tests: emulated processors are some twenty times slower."""

GROUPS = {
    "cgroups": "tests/e2e/cgroups",
    "limits": "tests/e2e/lifecycle/test_resources.py",
    "outcomes": "tests/e2e/lifecycle/test_outcomes.py",
    "apparmor": "tests/e2e/fields/test_apparmor.py",
}
DRIVERS = ("cgroupfs", "systemd")


@pytest.fixture(scope="module", params=RELEASES)
def machine(request: pytest.FixtureRequest, short_folder: Path) -> Iterator[Machine]:
    folder = short_folder / request.param
    folder.mkdir()
    with Machine(kernel(request.param), folder) as machine:
        yield machine


def test_the_machine_is_what_it_should_be(machine: Machine) -> None:
    asked = (
        "/proc/sys/kernel/osrelease /sys/fs/cgroup/cgroup.controllers /proc/1/comm /sys/kernel/security/lsm"
    )
    code, said = machine.run(f"cat {asked}")
    assert code == 0, said
    version, controllers, init, modules = said.splitlines()
    assert version == machine.kernel.version
    assert {"cpu", "cpuset", "hugetlb", "io", "memory", "pids"} <= set(controllers.split())
    assert init == "systemd"
    assert "apparmor" in modules.split(",")


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("group", GROUPS)
def test_group(machine: Machine, group: str, driver: str) -> None:
    if not (ROOT / GROUPS[group]).exists():
        pytest.skip(f"{GROUPS[group]} is not there")
    command = (
        f"cd {ROOT} && CI=1 PYTHONPATH={ROOT} PHANTOM_TEST_PATIENCE=10 PHANTOM_TEST_CGROUP_DRIVER={driver} "
        f".venv/bin/python -m pytest -p no:cacheprovider -o faulthandler_timeout=0 -q {GROUPS[group]}"
    )
    code, said = machine.run(command, GROUP_S)
    assert code == 0, said[-20_000:]
    assert " passed" in said

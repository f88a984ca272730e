"""The project's own tests, run where cgroup v2 rules alone, systemd is process 1 and AppArmor is on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.tools import ROOT
from tests.e2e.vm import selinux
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
SELINUX = "tests/e2e/fields/test_selinux.py tests/e2e/policy/test_relabel.py"


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
    run_tests(machine, GROUPS[group], driver)


@pytest.mark.parametrize("release", RELEASES)
def test_selinux(release: str, short_folder: Path) -> None:
    """Enforcing, in a machine of its own: a kernel has either AppArmor or SELinux."""
    folder = short_folder / f"selinux-{release}"
    folder.mkdir()
    with Machine(kernel(release), folder, selinux.PARAMETERS) as machine:
        code, said = machine.run(selinux.loading(selinux.policy(), enforce=True))
        assert (code, said) == (0, "system_u:system_r:kernel_t:s0")
        assert "skipped" not in run_tests(machine, SELINUX)


def run_tests(machine: Machine, tests: str, driver: str = "cgroupfs") -> str:
    command = (
        f"cd {ROOT} && CI=1 PYTHONPATH={ROOT} PHANTOM_TEST_PATIENCE=10 PHANTOM_TEST_CGROUP_DRIVER={driver} "
        f".venv/bin/python -m pytest -p no:cacheprovider -o faulthandler_timeout=0 -q {tests}"
    )
    code, said = machine.run(command, GROUP_S)
    assert code == 0, said[-20_000:]
    assert " passed" in said
    return said

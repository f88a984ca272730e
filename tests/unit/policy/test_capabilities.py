from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from phantom_cri.errors import FailedPrecondition
from phantom_cri.model import Capabilities, CapabilitySets, ContainerSecurity
from phantom_cri.policy import capabilities as module
from phantom_cri.policy.capabilities import NAMES, capability_sets, mask_of, names_in, unknown_names

DEFAULT = frozenset({"CHOWN", "KILL"})
EVERYTHING = (1 << len(NAMES)) - 1


@pytest.fixture(autouse=True)
def node_without_sys_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that may give all but one, whoever runs this test."""
    monkeypatch.setattr(module, "grantable", lambda: EVERYTHING & ~mask_of(["SYS_RESOURCE"]))
    monkeypatch.setattr(module, "known_to_kernel", lambda: EVERYTHING)


def sets(wished: dict[str, Any], privileged: bool = False) -> CapabilitySets:
    security = ContainerSecurity(privileged=privileged, capabilities=Capabilities(**wished))
    return capability_sets(security, DEFAULT)


@pytest.mark.parametrize("field", ["add", "drop", "add_ambient"])
@pytest.mark.parametrize("name", ["NO_SUCH", "", "CAP_", "CAP_CAP_KILL", "ALLL"])
def test_unknown_names_are_ignored_and_reported(field: str, name: str) -> None:
    assert sets({field: (name,)}) == sets({})
    wished: dict[str, Any] = {field: (name, "KILL")}
    assert unknown_names(Capabilities(**wished)) == (name,)


@pytest.mark.parametrize("field", ["add", "drop", "add_ambient"])
def test_a_capability_of_a_newer_kernel_is_unknown(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    monkeypatch.setattr(module, "known_to_kernel", lambda: mask_of(NAMES[:38]))
    monkeypatch.setattr(module, "grantable", lambda: mask_of(NAMES[:38]))
    assert sets({field: ("CAP_PERFMON",)}) == sets({})
    wished: dict[str, Any] = {field: ("CAP_PERFMON", "ALL")}
    assert unknown_names(Capabilities(**wished)) == ("CAP_PERFMON",)


def test_one_that_the_node_lacks_is_refused_and_all_does_without() -> None:
    with pytest.raises(FailedPrecondition, match="SYS_RESOURCE"):
        sets({"add": ("SYS_RESOURCE",)})
    found = sets({"add": ("ALL",)})
    assert names_in(found.bounding) == set(NAMES) - {"SYS_RESOURCE"}


def test_privileged_takes_all_there_is() -> None:
    found = sets({"drop": ("ALL",)}, privileged=True)
    assert found.effective == EVERYTHING & ~mask_of(["SYS_RESOURCE"])


@pytest.mark.parametrize(
    "wished, held",
    [
        ({}, {"CHOWN", "KILL"}),
        ({"add": ("cap_net_raw",)}, {"CHOWN", "KILL", "NET_RAW"}),
        ({"add": ("Net_Raw",), "drop": ("CAP_CHOWN",)}, {"KILL", "NET_RAW"}),
        ({"drop": ("ALL",)}, set()),
        ({"drop": ("all",), "add": ("SYS_TIME",)}, {"SYS_TIME"}),
        ({"add": ("KILL",), "drop": ("KILL",)}, {"CHOWN"}),
        ({"add": ("ALL",), "drop": ("CHOWN", "SYS_RESOURCE")}, set(NAMES) - {"CHOWN", "SYS_RESOURCE"}),
    ],
)
def test_add_and_drop(wished: dict[str, tuple[str, ...]], held: set[str]) -> None:
    found = sets(wished)
    assert names_in(found.permitted) == held
    assert found.bounding == found.effective == found.permitted
    assert found.inheritable == found.ambient == 0


def test_ambient_comes_with_all_that_it_needs() -> None:
    found = sets({"drop": ("ALL",), "add_ambient": ("NET_BIND_SERVICE",)})
    assert {found.bounding, found.permitted, found.inheritable, found.ambient} == {
        mask_of(["NET_BIND_SERVICE"])
    }


def test_names_have_the_kernels_numbers() -> None:
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip("linux-libc-dev is not installed")
    defined = dict(
        line.split()[1:3] for line in header.read_text().splitlines() if line.startswith("#define CAP_")
    )
    for number, name in enumerate(NAMES):
        assert defined.get(f"CAP_{name}", str(number)) == str(number)

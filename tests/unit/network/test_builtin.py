"""The driver without a network: what it says before the kernel is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from phantom_cri import errors
from phantom_cri.config import NetworkConfig
from phantom_cri.network.builtin import BuiltinNetwork


async def test_before_start_it_is_not_ready_and_says_so(tmp_path: Path) -> None:
    network = BuiltinNetwork(NetworkConfig(), tmp_path)
    assert (await network.ready())[:2] == (False, "NetworkNotStarted")
    with pytest.raises(errors.FailedPrecondition, match="not started"):
        await network.attach("a", "/proc/self/ns/net")
    await network.release("unknown")
    await network.close()


def test_names_fit_and_differ_by_sandbox_and_instance(tmp_path: Path) -> None:
    names = set()
    for bridge in ("phantom0", "phantom1"):
        network = BuiltinNetwork(NetworkConfig(bridge=bridge), tmp_path)
        names |= {network._veth_name(f"{n:064x}") for n in range(1000)}
    assert len(names) == 2000
    assert {len(name) for name in names} == {15}
    assert not any(set(name) & set("/: \t\n") for name in names)

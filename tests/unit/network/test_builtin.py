"""The driver without a network: what it refuses before the kernel is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from phantom_cri import errors
from phantom_cri.codec import from_json, to_json
from phantom_cri.network import NetworkConfig
from phantom_cri.network.builtin import BuiltinNetwork


@pytest.mark.parametrize("bridge", ["", "a" * 16, "a b", "a/b", "0a", 'a"', "a\n", "ä"])
def test_a_bridge_name_the_kernel_or_nftables_would_stumble_over(tmp_path: Path, bridge: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"network\.bridge"):
        BuiltinNetwork(NetworkConfig(bridge=bridge), tmp_path)


@pytest.mark.parametrize("mtu", [-1, 1, 1279, 65536])
def test_an_mtu_that_ipv6_or_the_kernel_does_not_allow(tmp_path: Path, mtu: int) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"network\.mtu"):
        BuiltinNetwork(NetworkConfig(mtu=mtu), tmp_path)


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


def test_the_config_survives_json() -> None:
    config = NetworkConfig(bridge="x", subnets=("10.0.0.0/24",), mtu=1400, masquerade=False)
    assert from_json(to_json(config), NetworkConfig) == config

"""Packets through the built-in network, in namespaces of the tests' own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import pytest

from phantom_cri.config import NetworkConfig
from phantom_cri.model import PortMapping
from phantom_cri.network.builtin import BuiltinNetwork
from tests.e2e.network.conftest import Node
from tests.e2e.network.world import NODE_IPS, OUTSIDE_IPS, Namespace, ask, ping, serve

pytestmark = pytest.mark.root

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
KINDS = {"tcp": TCP, "udp": UDP}
LOOPBACKS = ("127.0.0.1", "::1")
GATEWAYS = ("10.88.0.1", "fd70:6861:6e74::1")


async def wired(network: BuiltinNetwork, node: Node, name: str) -> tuple[Namespace, tuple[str, ...]]:
    pod = node.world.pod()
    attachment = await network.attach(name, pod.path)
    pod.wire(attachment)
    return pod, attachment.ips


@pytest.mark.parametrize("version", [4, 6])
def test_pods_reach_each_other_the_node_and_themselves(node: Node, version: int) -> None:
    at = 0 if version == 4 else 1

    async def scenario(network: BuiltinNetwork) -> None:
        (one, one_ips), (two, two_ips) = await wired(network, node, "one"), await wired(network, node, "two")
        ping(one, two_ips[at])
        ping(one, ("127.0.0.1", "::1")[at])
        ping(one, GATEWAYS[at])
        ping(node.world.node, one_ips[at])
        with serve(two, TCP, two_ips[at], 80):
            assert ask(one, TCP, two_ips[at], 80) == (two_ips[at], one_ips[at])
            assert ask(node.world.node, TCP, two_ips[at], 80) == (two_ips[at], GATEWAYS[at])

    node.run(scenario)


@pytest.mark.parametrize("version", [4, 6])
def test_the_outside_sees_the_node_and_never_a_pod(node: Node, version: int) -> None:
    at = 0 if version == 4 else 1

    async def scenario(network: BuiltinNetwork) -> None:
        pod, _ = await wired(network, node, "pod")
        for kind in (TCP, UDP):
            with serve(node.world.outside, kind, OUTSIDE_IPS[at], 80):
                assert ask(pod, kind, OUTSIDE_IPS[at], 80) == (OUTSIDE_IPS[at], NODE_IPS[at])
        ping(pod, OUTSIDE_IPS[at])

    node.run(scenario)


def test_without_masquerade_the_pod_shows_itself(node: Node) -> None:
    async def scenario(network: BuiltinNetwork) -> None:
        pod, ips = await wired(network, node, "pod")
        node.world.outside.ip(f"route add 10.88.0.0/16 via {NODE_IPS[0]}")
        with serve(node.world.outside, TCP, OUTSIDE_IPS[0], 80):
            assert ask(pod, TCP, OUTSIDE_IPS[0], 80) == (OUTSIDE_IPS[0], ips[0])

    node.run(scenario, config=NetworkConfig(masquerade=False))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("br_netfilter", ["0", "1"])
def test_a_host_port_from_everywhere(node: Node, protocol: str, version: int, br_netfilter: str) -> None:
    at, kind = (0 if version == 4 else 1), KINDS[protocol]
    mapping = PortMapping(protocol, 80, 8080)  # type: ignore[arg-type]
    set_br_netfilter(node, br_netfilter)

    async def scenario(network: BuiltinNetwork) -> None:
        (pod, ips), (other, other_ips) = (
            await wired(network, node, "pod"),
            await wired(network, node, "other"),
        )
        await network.expose("pod", ips, [mapping])
        with serve(pod, kind, ips[at], 80):
            assert ask(node.world.outside, kind, NODE_IPS[at], 8080) == (ips[at], OUTSIDE_IPS[at])
            assert ask(node.world.node, kind, NODE_IPS[at], 8080) == (ips[at], NODE_IPS[at])
            if version == 4 or br_netfilter == "0":
                assert ask(node.world.node, kind, LOOPBACKS[at], 8080) == (ips[at], GATEWAYS[at])
            elif kind == TCP:
                with pytest.raises(ConnectionRefusedError):  # at once
                    ask(node.world.node, kind, LOOPBACKS[at], 8080)
            for caller, caller_ip in ((pod, ips[at]), (other, other_ips[at])):
                server, seen = ask(caller, kind, NODE_IPS[at], 8080)
                assert server == ips[at] and seen in (GATEWAYS[at], caller_ip)
            await network.release("pod")
            assert_closed(node.world.outside, kind, NODE_IPS[at])
            assert_closed(node.world.node, kind, NODE_IPS[at])
            assert_closed(node.world.node, kind, LOOPBACKS[at])

    node.run(scenario)


def set_br_netfilter(node: Node, value: str) -> None:
    """With br_netfilter on, bridged frames pass nftables too: a classic trap for hairpins."""
    for name in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables"):
        try:
            node.world.node.sysctl(f"bridge/{name}", value)
        except FileNotFoundError:
            if value == "1":
                pytest.skip("this kernel has no br_netfilter")


def assert_closed(caller: Namespace, kind: socket.SocketKind, address: str) -> None:
    with pytest.raises(OSError):  # refused, or for UDP perhaps no answer at all
        ask(caller, kind, address, 8080)


@pytest.mark.parametrize("host_ip", [*LOOPBACKS, *NODE_IPS])
def test_a_host_ip_opens_that_address_only(node: Node, host_ip: str) -> None:
    at = 1 if ":" in host_ip else 0
    set_br_netfilter(node, "0")

    async def scenario(network: BuiltinNetwork) -> None:
        pod, ips = await wired(network, node, "pod")
        await network.expose("pod", ips, [PortMapping("tcp", 80, 8080, host_ip)])
        with serve(pod, TCP, ips[at], 80):
            for address in (LOOPBACKS[at], NODE_IPS[at]):
                if address == host_ip:
                    assert ask(node.world.node, TCP, address, 8080)[0] == ips[at]
                else:
                    assert_closed(node.world.node, TCP, address)

    node.run(scenario)


def test_no_pod_reaches_what_listens_on_the_nodes_loopback(node: Node) -> None:
    """route_localnet alone would let it: a pod sends 127.0.0.1 to the bridge's MAC (CVE-2020-8558)."""

    async def scenario(network: BuiltinNetwork) -> None:
        pod, _ = await wired(network, node, "pod")
        pod.sysctl("ipv4/conf/eth0/route_localnet", "1")
        pod.ip("addr del 127.0.0.1/8 dev lo")
        pod.ip("route del local 127.0.0.1 dev lo table local") if "127.0.0.1" in pod.ip(
            "route show table local"
        ) else None
        pod.ip(f"route add 127.0.0.1 via {GATEWAYS[0]} dev eth0 src 10.88.0.2")
        with serve(node.world.node, TCP, "127.0.0.1", 9000):
            with pytest.raises(TimeoutError):
                ask(pod, TCP, "127.0.0.1", 9000)
            node.world.node.run("nft", "flush", "chain", "inet", "phantom_phantom0", "guard")
            assert ask(pod, TCP, "127.0.0.1", 9000)[0] == "127.0.0.1", "only the guard was in the way"

    node.run(scenario)


def test_a_flushed_ruleset_is_written_anew(node: Node) -> None:
    async def scenario(network: BuiltinNetwork) -> None:
        (one, one_ips), (two, two_ips) = await wired(network, node, "one"), await wired(network, node, "two")
        await network.expose("one", one_ips, [PortMapping("tcp", 80, 8081)])
        node.world.node.run("nft", "flush", "ruleset")
        await network.expose("two", two_ips, [PortMapping("tcp", 80, 8082)])
        with serve(one, TCP, one_ips[0], 80), serve(two, TCP, two_ips[0], 80):
            assert ask(node.world.outside, TCP, NODE_IPS[0], 8081)[0] == one_ips[0]
            assert ask(node.world.outside, TCP, NODE_IPS[0], 8082)[0] == two_ips[0]
        node.world.node.run("nft", "flush", "ruleset")
        await network.release("two")
        assert "10.88.0.2" in node.world.node.run("nft", "list", "ruleset")
        assert "10.88.0.3" not in node.world.node.run("nft", "list", "ruleset")

    node.run(scenario)


def test_two_daemons_side_by_side(node: Node) -> None:
    second = NetworkConfig(bridge="phantom1", subnets=("10.89.0.0/16", "fd70:6861:6e75::/64"))

    async def scenario(first: BuiltinNetwork) -> None:
        other = BuiltinNetwork(second, node.state / "other")
        await other.start({})
        pod, ips = await wired(first, node, "same-id")
        neighbour, neighbour_ips = await wired(other, node, "same-id")
        await first.expose("same-id", ips, [PortMapping("tcp", 80, 8080)])
        await other.expose("same-id", neighbour_ips, [PortMapping("tcp", 80, 8081)])
        with serve(pod, TCP, ips[0], 80), serve(neighbour, TCP, neighbour_ips[0], 80):
            assert ask(node.world.outside, TCP, NODE_IPS[0], 8080)[0] == ips[0]
            assert ask(node.world.outside, TCP, NODE_IPS[0], 8081)[0] == neighbour_ips[0]
            await first.release("same-id")
            await first.start({})
            assert ask(node.world.outside, TCP, NODE_IPS[0], 8081)[0] == neighbour_ips[0]
        await other.close()

    node.run(scenario)


async def together(network: BuiltinNetwork, node: Node, names: Sequence[str]) -> list[tuple[str, ...]]:
    made = await asyncio.gather(*(wired(network, node, name) for name in names))
    return [ips for _, ips in made]


def test_many_at_once_get_addresses_of_their_own(node: Node) -> None:
    async def scenario(network: BuiltinNetwork) -> None:
        ips = await together(network, node, [f"pod{n}" for n in range(20)])
        assert len({ip for pair in ips for ip in pair}) == 40

    node.run(scenario)


@pytest.mark.parametrize("version", [4, 6])
def test_a_udp_client_that_never_pauses_follows_the_host_port(node: Node, version: int) -> None:
    at = 0 if version == 4 else 1

    async def scenario(network: BuiltinNetwork) -> None:
        pods = {name: await wired(network, node, name) for name in ("first", "second")}
        with pytest.raises(OSError):
            ask(node.world.outside, UDP, NODE_IPS[at], 8080, own_port=5000)
        for name, (pod, ips) in pods.items():
            await network.expose(name, ips, [PortMapping("udp", 80, 8080)])
            with serve(pod, UDP, ips[at], 80):
                assert ask(node.world.outside, UDP, NODE_IPS[at], 8080, own_port=5000)[0] == ips[at]
            await network.release(name)
        assert network.features()["conntrack"] == "on"

    node.run(scenario)


def test_every_protocol_opens_and_closes(node: Node) -> None:
    """SCTP too, which has no sockets on every kernel: its elements are looked at instead."""

    async def scenario(network: BuiltinNetwork) -> None:
        _, ips = await wired(network, node, "pod")
        before = node.world.node.run("nft", "list", "ruleset")
        mappings = [
            PortMapping("tcp", 80, 8080),
            PortMapping("udp", 80, 8080, NODE_IPS[1]),
            PortMapping("sctp", 80, 8080),
        ]
        await network.expose("pod", ips, mappings)
        opened = node.world.node.run("nft", "list", "ruleset")
        for element in (
            f"sctp . 8080 : {ips[0]} . 80",
            f"sctp . 8080 : {ips[1]} . 80",
            f"{NODE_IPS[1]} . udp . 8080 : {ips[1]} . 80",
        ):
            assert element in opened
        await network.release("pod")
        assert node.world.node.run("nft", "list", "ruleset") == before

    node.run(scenario)

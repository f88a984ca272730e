"""What is left behind (nothing), what survives a crash, and what a poorer machine gets."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from phantom_cri import errors
from phantom_cri.config import NetworkConfig
from phantom_cri.model import PortMapping
from phantom_cri.network import nftables
from phantom_cri.network.builtin import BuiltinNetwork
from tests.e2e.network.conftest import Node
from tests.e2e.network.test_traffic import TCP, assert_closed, wired
from tests.e2e.network.world import NODE_IPS, Namespace, ask, ping, serve

pytestmark = pytest.mark.root

WEB = PortMapping("tcp", 80, 8080)


def links(node: Node) -> set[str]:
    return {link["ifname"] for link in json.loads(node.world.node.ip("-j link"))}


def everything(node: Node) -> tuple[object, ...]:
    """Links, addresses, routes, nftables and records, as they are now."""
    inside = node.world.node
    records = sorted(path.name for path in (node.state / "network" / "pods").iterdir())
    addresses = {
        (link["ifname"], entry["local"])
        for link in json.loads(inside.ip("-j addr"))
        for entry in link["addr_info"]
        if entry["scope"] == "global"
    }
    return (
        links(node),
        addresses,
        inside.ip("route").replace(" linkdown", ""),
        inside.run("nft", "list", "ruleset"),
        records,
    )


async def until_only(node: Node, wanted: set[str]) -> None:
    """The kernel removes a dead namespace's links in its own time: within seconds, or it fails."""
    async with asyncio.timeout(10):
        while links(node) != wanted:  # noqa: ASYNC110 (the kernel sets no asyncio.Event)
            await asyncio.sleep(0.02)


def test_five_hundred_pods_leave_nothing(node: Node) -> None:
    async def scenario(network: BuiltinNetwork) -> None:
        before = everything(node)
        fds = len(os.listdir("/proc/self/fd"))
        seen: set[str] = set()
        for number in range(500):
            pod = Namespace()
            attachment = await network.attach(f"pod{number}", pod.path)
            seen.update(attachment.ips)
            if number % 5 == 0:
                await network.expose(f"pod{number}", attachment.ips, [WEB])
            pod.close()
            await network.release(f"pod{number}")
        assert len(seen) == 1000, "no address came back while there were others"
        await until_only(node, {"lo", "eth0", "phantom0"})
        assert everything(node) == before
        assert len(os.listdir("/proc/self/fd")) == fds

    node.run(scenario)


def test_release_is_idempotent_and_takes_the_link_of_a_namespace_that_stays(node: Node) -> None:
    async def scenario(network: BuiltinNetwork) -> None:
        await network.release("never-seen")
        pod, ips = await wired(network, node, "pod")
        await network.expose("pod", ips, [WEB])
        for _ in range(3):
            await network.release("pod")
        await until_only(node, {"lo", "eth0", "phantom0"})
        assert "eth0" not in pod.ip("link")

    node.run(scenario)


def test_the_nodes_own_interfaces_are_left_as_they_are(node: Node) -> None:
    def own() -> str:
        return (
            node.world.node.ip("addr show eth0")
            + node.world.node.ip("route")
            + node.world.node.ip("-6 route")
        )

    before = own()

    async def scenario(network: BuiltinNetwork) -> None:
        _, ips = await wired(network, node, "pod")
        await network.expose("pod", ips, [WEB])
        await network.release("pod")
        await network.dismantle()

    node.run(scenario)
    assert own() == before
    assert links(node) == {"lo", "eth0"} and node.world.node.run("nft", "list", "ruleset") == ""


def test_a_restart_keeps_the_living_and_undoes_the_dead(node: Node) -> None:
    pods: dict[str, tuple[Namespace, tuple[str, ...]]] = {}

    async def before(network: BuiltinNetwork) -> None:
        for name in ("live", "dead", "half"):
            pods[name] = await wired(network, node, name)
        await network.expose("live", pods["live"][1], [WEB])
        await network.expose("dead", pods["dead"][1], [PortMapping("tcp", 80, 8081)])

    node.run(before)  # its end writes nothing: to the disk it is a crash
    (node.state / "network" / "pods" / "half.json").write_bytes(b"")
    live, ips = pods["live"]

    async def after(network: BuiltinNetwork) -> None:
        assert len(links(node)) == 4, "the dead pods' links are gone although their namespaces exist"
        with serve(live, TCP, ips[0], 80):
            assert ask(node.world.outside, TCP, NODE_IPS[0], 8080)[0] == ips[0]
        assert "8081" not in node.world.node.run("nft", "list", "ruleset")
        _, fresh = await wired(network, node, "fresh")
        assert fresh[0] == "10.88.0.5"
        with pytest.raises(errors.AlreadyExists, match=r"8080/tcp: sandbox live holds"):
            await network.expose("fresh", fresh, [WEB])
        await network.expose("fresh", fresh, [PortMapping("tcp", 80, 8081)])
        await network.release("live")
        assert_closed(node.world.outside, TCP, NODE_IPS[0])

    node.run(after, live={"live": ips})


def test_a_deleted_bridge_is_repaired(node: Node) -> None:
    pods: list[tuple[Namespace, tuple[str, ...]]] = []

    async def before(network: BuiltinNetwork) -> None:
        pods.append(await wired(network, node, "one"))
        pods.append(await wired(network, node, "two"))

    node.run(before)
    node.world.node.ip("link delete phantom0")
    (one, one_ips), (_, two_ips) = pods

    async def after(network: BuiltinNetwork) -> None:
        ping(one, two_ips[0])
        ping(one, two_ips[1])

    node.run(after, live={"one": one_ips, "two": two_ips})


def test_exhaustion_names_the_subnet_and_ends_with_a_release(node: Node) -> None:
    async def scenario(network: BuiltinNetwork) -> None:
        pods = [await wired(network, node, f"pod{n}") for n in range(5)]
        extra = node.world.pod()
        with pytest.raises(errors.ResourceExhausted, match=r"10\.99\.0\.0/29"):
            await network.attach("extra", extra.path)
        await network.release("pod2")
        attachment = await network.attach("extra", extra.path)
        extra.wire(attachment)
        assert attachment.ips == pods[2][1]
        ping(extra, pods[0][1][0])

    node.run(scenario, config=NetworkConfig(subnets=("10.99.0.0/29",)))


def test_a_refused_attach_leaves_nothing(node: Node, tmp_path: Path) -> None:
    no_namespace = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)

    async def scenario(network: BuiltinNetwork) -> None:
        before = everything(node)
        with pytest.raises(errors.Internal, match="make veth"):
            await network.attach("pod", f"/proc/self/fd/{no_namespace}")
        pod, _ = await wired(network, node, "once")
        with pytest.raises(errors.Internal, match="EEXIST"):
            await network.attach("twice", pod.path)
        with pytest.raises(errors.AlreadyExists, match="once"):
            await network.attach("once", pod.path)
        await network.release("once")
        await until_only(node, {"lo", "eth0", "phantom0"})
        assert everything(node) == before

    node.run(scenario)
    os.close(no_namespace)


def test_a_cancelled_attach_leaves_nothing(node: Node) -> None:
    async def scenario(network: BuiltinNetwork) -> None:
        before = everything(node)
        for turns in range(6):
            pod = node.world.pod()
            task = asyncio.create_task(network.attach(f"pod{turns}", pod.path))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                await network.release(f"pod{turns}")
        await until_only(node, {"lo", "eth0", "phantom0"})
        assert everything(node) == before

    node.run(scenario)


def test_a_sandbox_attached_again_gets_a_new_link(node: Node) -> None:
    async def scenario(network: BuiltinNetwork) -> None:
        await wired(network, node, "pod")
        await network.release("pod")
        again, _ = await wired(network, node, "pod")
        ping(again, "10.88.0.1")

    node.run(scenario)


def test_a_refused_expose_opens_nothing(node: Node) -> None:
    async def scenario(network: BuiltinNetwork) -> None:
        (_, one), (_, two) = await wired(network, node, "one"), await wired(network, node, "two")
        await network.expose("one", one, [WEB])
        await network.expose("one", one, [WEB])
        before = everything(node)
        with pytest.raises(errors.AlreadyExists, match=r"0\.0\.0\.0:8080/tcp: sandbox one"):
            await network.expose("two", two, [PortMapping("tcp", 80, 8090), WEB])
        with pytest.raises(errors.FailedPrecondition, match="nobody is not attached"):
            await network.expose("nobody", two, [PortMapping("tcp", 80, 8090)])
        with pytest.raises(errors.FailedPrecondition, match="other host ports"):
            await network.expose("one", one, [PortMapping("tcp", 80, 8090)])
        assert everything(node) == before
        await network.release("one")
        await network.expose("two", two, [WEB])

    node.run(scenario)


def test_where_ipv6_is_disabled_pods_have_ipv4(node: Node) -> None:
    for key in ("all", "default"):
        node.world.node.sysctl(f"ipv6/conf/{key}/disable_ipv6", "1")

    async def scenario(network: BuiltinNetwork) -> None:
        assert (await network.ready())[0]
        assert network.features()["ipv6"].startswith("off: the kernel refuses")
        pod, ips = await wired(network, node, "pod")
        assert ips == ("10.88.0.2",)
        await network.expose("pod", ips, [WEB])
        with serve(pod, TCP, ips[0], 80):
            assert ask(node.world.outside, TCP, NODE_IPS[0], 8080)[0] == ips[0]

    node.run(scenario)


def test_without_libnftables_only_host_ports_are_refused(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nftables, "_LIBRARY", "libnftables-of-nobody.so.1")

    async def scenario(network: BuiltinNetwork) -> None:
        assert (await network.ready())[0]
        features = network.features()
        for name in ("nftables", "masquerade", "host_ports"):
            assert features[name].startswith("off: libnftables-of-nobody.so.1 cannot be loaded")
        (one, one_ips), (_, two_ips) = await wired(network, node, "one"), await wired(network, node, "two")
        ping(one, two_ips[0])
        await network.expose("one", one_ips, [PortMapping("tcp", 80, 0)])
        with pytest.raises(
            errors.FailedPrecondition, match="no host ports on this node: libnftables-of-nobody"
        ):
            await network.expose("one", one_ips, [WEB])
        await network.release("one")

    node.run(scenario)
    assert node.world.node.sysctl("ipv4/conf/phantom0/route_localnet") == "0"


def test_a_bridge_that_is_not_ours_is_not_touched(node: Node) -> None:
    node.world.node.ip("link add phantom0 type bridge")
    before = node.world.node.ip("-d link show phantom0")

    async def scenario(network: BuiltinNetwork) -> None:
        ready, reason, message = await network.ready()
        assert (ready, reason) == (False, "NetworkConflict") and "phantom0 exists and is not ours" in message
        with pytest.raises(errors.FailedPrecondition, match="is not ours"):
            await network.attach("pod", node.world.pod().path)

    node.run(scenario)
    assert node.world.node.ip("-d link show phantom0") == before


def test_a_bridge_is_another_daemons_until_its_state_is_gone(node: Node, tmp_path: Path) -> None:
    other = Node(node.world, tmp_path / "other")

    async def make(network: BuiltinNetwork) -> None:
        await wired(network, node, "leftover")

    async def refused(network: BuiltinNetwork) -> None:
        assert (await network.ready())[:2] == (False, "NetworkConflict")

    async def adopted(network: BuiltinNetwork) -> None:
        assert (await network.ready())[0] and links(node) == {"lo", "eth0", "phantom0"}
        pod, _ = await wired(network, node, "pod")
        ping(pod, "10.88.0.1")

    other.run(make)
    node.run(refused)
    shutil.rmtree(other.state)
    node.run(adopted)


def test_a_subnet_that_overlaps_with_the_nodes_is_refused(node: Node) -> None:
    async def scenario(network: BuiltinNetwork) -> None:
        ready, _, message = await network.ready()
        assert not ready and "192.0.0.0/8 overlaps with 192.0.2.10/24" in message

    node.run(scenario, config=NetworkConfig(subnets=("192.0.0.0/8",)))


def test_an_advertised_default_route_is_worth_more_than_forwarding(node: Node) -> None:
    inside = node.world.node
    inside.ip("-6 route del default")
    inside.ip("-6 route add default via 2001:db8::20 dev eth0 proto ra")

    async def scenario(network: BuiltinNetwork) -> None:
        assert network.features()["forwarding_ipv6"].startswith("off: net.ipv6.conf.all.forwarding=1 would")
        pod, ips = await wired(network, node, "pod")
        assert len(ips) == 2 and "default" not in pod.ip("-6 route")
        with pytest.raises(OSError), pod.socket(socket.SOCK_DGRAM, "::") as unrouted:
            unrouted.connect(("2001:db8::20", 80))

    node.run(scenario)
    assert inside.sysctl("ipv6/conf/all/forwarding") == "0"
    assert "default via 2001:db8::20 dev eth0 proto ra" in inside.ip("-6 route")


def test_the_mtu_follows_the_way_out(node: Node) -> None:
    node.world.node.ip("link set eth0 mtu 1400")

    async def scenario(network: BuiltinNetwork) -> None:
        pod, _ = await wired(network, node, "pod")
        assert "mtu 1400" in pod.ip("link show eth0") and "mtu 1400" in node.world.node.ip(
            "link show phantom0"
        )

    node.run(scenario)

"""Our messages, read back by pyroute2: an encoder that knows nothing of ours."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from phantom_cri.network import links
from phantom_cri.network import netlink as nl

MAC = bytes.fromhex("0a580a580002")
NETWORKS = (
    links.PodSubnet(ipaddress.ip_interface("10.88.0.1/16"), True),
    links.PodSubnet(ipaddress.ip_interface("fd00:1::1/64"), True),
)
FOUR, SIX = ipaddress.ip_address("10.88.0.2").packed, ipaddress.ip_address("fd00:1::2").packed


def read(kind: type[Any], message: bytes) -> Any:
    decoded = kind(message)
    decoded.decode()
    return decoded


def split(batch: bytes) -> list[bytes]:
    found, offset = [], 0
    while offset < len(batch):
        (length,) = struct.unpack_from("=I", batch, offset)
        assert length >= 16 and length % 4 == 0
        found.append(batch[offset : offset + length])
        offset += length
    return found


def test_a_veth_is_made_up_enslaved_and_in_the_pods_namespace() -> None:
    create, hairpin = links.VethTemplate(7, 1400).requests(1 << 20, "ph0123456789abc", MAC, 33)
    link = read(ifinfmsg, create)
    assert (link["header"]["type"], link["header"]["flags"]) == (16, 0x1 | 0x4 | 0x200 | 0x400)
    assert (link["index"], link["flags"], link["change"]) == (1 << 20, 1, 1)
    assert link.get("ifname") == "ph0123456789abc"
    assert (link.get("master"), link.get("mtu")) == (7, 1400)
    info = link.get("linkinfo")
    assert info.get("kind") == "veth"
    peer = info.get("data").get("VETH_INFO_PEER")
    assert (peer["index"], peer.get("ifname"), peer.get("mtu")) == (links.PEER, "eth0", 1400)
    assert (peer.get("address"), peer.get("net_ns_fd")) == ("0a:58:0a:58:00:02", 33)
    assert (peer.get("num_tx_queues"), link.get("num_rx_queues")) == (1, 1)
    slave = read(ifinfmsg, hairpin)
    assert slave["index"] == 1 << 20
    assert slave.get("linkinfo").get("slave_data").get("mode") == 1


@pytest.mark.parametrize("networks", [NETWORKS, NETWORKS[:1], NETWORKS[1:]])
def test_a_pod_gets_lo_eth0_addresses_and_routes_in_this_order(networks: tuple[links.PodSubnet, ...]) -> None:
    six = any(network.gateway.version == 6 for network in networks)
    packed = [{4: FOUR, 6: SIX}[network.gateway.version] for network in networks]
    requests = split(links.PodTemplate(networks).batch(packed, MAC))
    assert all(struct.unpack_from("=H", request, 6)[0] & 0x5 == 0x5 for request in requests)
    kinds = [struct.unpack_from("=H", request, 4)[0] for request in requests]
    assert kinds == [16] * (3 if six else 2) + [20] * (len(networks) + six) + [24] * len(networks)
    changed = [read(ifinfmsg, request) for request in requests if request[4] == 16]
    assert [(link["index"], link["flags"]) for link in changed][:: len(changed) - 1] == [(1, 1), (100, 1)]
    addresses = [read(ifaddrmsg, request) for request in requests if request[4] == 20]
    assert {(item.get("address"), item["prefixlen"], item["index"]) for item in addresses} == {
        *([("10.88.0.2", 16, 100)] if networks[0] is NETWORKS[0] else []),
        *([("fd00:1::2", 64, 100), ("fe80::858:aff:fe58:2", 64, 100)] if six else []),
    }
    assert all(item["flags"] & 2 for item in addresses if item["family"] == 10), "nodad"
    for item in addresses:
        if item["family"] == 2:
            assert (item.get("local"), item.get("broadcast")) == ("10.88.0.2", "10.88.255.255")
    routes = [read(rtmsg, request) for request in requests if request[4] == 24]
    assert [(item.get("gateway"), item.get("oif"), item["dst_len"]) for item in routes] == [
        (str(network.gateway.ip), 100, 0) for network in networks
    ]


def test_a_version_without_forwarding_gets_no_default_route() -> None:
    networks = (NETWORKS[0], NETWORKS[1]._replace(routed=False))
    routes = [r for r in split(links.PodTemplate(networks).batch([FOUR, SIX], MAC)) if r[4] == 24]
    assert [read(rtmsg, route).get("gateway") for route in routes] == ["10.88.0.1"]


@given(
    st.binary(min_size=4, max_size=4), st.binary(min_size=8, max_size=8), st.binary(min_size=6, max_size=6)
)
def test_a_patched_batch_equals_one_that_is_encoded(four: bytes, host: bytes, mac: bytes) -> None:
    six = SIX[:8] + host  # any address of the subnet, which says what scope they have
    batch = links.PodTemplate(NETWORKS).batch([four, six], mac)
    encoded = [
        links.put_address(links.PEER, links.link_local(mac)),
        links.put_address(links.PEER, ipaddress.ip_interface((six, 64))),
    ]
    assert all(request in split(batch) for request in encoded)
    (address,) = (r for r in split(batch) if r[4] == 20 and r[16] == 2)
    assert address.count(four) >= 2


@given(st.binary(max_size=200))
def test_hostile_bytes_do_not_break_the_reader(packet: bytes) -> None:
    for _, _, _, body in nl.messages(packet):
        nl.attributes(body, 0)


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=20)), unique_by=lambda pair: pair[0]))
def test_attributes_are_read_as_written(pairs: list[tuple[int, bytes]]) -> None:
    body = b"head" + b"".join(nl.attribute(kind, payload) for kind, payload in pairs)
    assert nl.attributes(body, 4) == dict(pairs)
    message = nl.message(16, 0, body, 9)
    assert list(nl.messages(message + message)) == [(16, 1, 9, body)] * 2

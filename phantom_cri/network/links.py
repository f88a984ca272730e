"""rtnetlink messages for bridge, veth pair, addresses and routes.

Attribute numbers are those of include/uapi/linux/{if_link,if_addr,rtnetlink,veth}.h.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from phantom_cri.network import netlink as nl

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
_RTPROT_BOOT = 3

_IFF_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER = 1, 3, 4, 10
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_AF_SPEC, _IFLA_GROUP, _IFLA_NET_NS_FD = 18, 20, 26, 27, 28
_IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 31, 32
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_INFO_PEER = 1
_BR_MCAST_SNOOPING = 23
_BRPORT_MODE = 4  # hairpin
_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE = 8, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD, _RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK = 0x02, 0, 253
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY = 1, 4, 5, 6
_RT_TABLE_MAIN, _RT_TABLE_LOCAL, _RTN_UNICAST, _RTN_LOCAL = 254, 255, 1, 2
_LOOPBACK_METRIC = 1 << 16
_SET, _MAKE = nl.NLM_F_ACK, nl.NLM_F_ACK | nl.NLM_F_CREATE | nl.NLM_F_EXCL
_PUT = nl.NLM_F_ACK | nl.NLM_F_CREATE | nl.NLM_F_REPLACE

IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change
IFADDR = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst and src length, tos, table, protocol, scope, type, flags

LOOPBACK = 1
PEER = 100
"""ifindex of eth0 in every pod: known before the link exists, and above the fallback tunnels (tunl0,
sit0, …) that some kernels create in each new namespace."""

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


_ADDRESS_AT = 16 + IFADDR.size + 4
"""Offset of the first attribute's payload in a message of `put_address`."""


class PodSubnet(NamedTuple):
    """`gateway`: the bridge's own address with prefix; `routed`: pods get a default route through it."""

    gateway: Interface
    routed: bool


def _change_link(index: int, attributes: bytes, *, up: bool = False, family: int = 0) -> bytes:
    flag = _IFF_UP if up else 0
    return nl.message(RTM_NEWLINK, _SET, IFINFO.pack(family, 0, index, flag, flag) + attributes)


def make_bridge(name: str, mac: bytes, mtu: int, alias: str) -> list[bytes]:
    """An empty bridge. Its MAC is set, otherwise it would change when ports are added or removed.

    Multicast snooping is off: without a querier it is useless, and it can drop neighbour discovery.
    """
    linkinfo = nl.attribute(
        _IFLA_LINKINFO,
        nl.text(_INFO_KIND, "bridge") + nl.attribute(_INFO_DATA, nl.u8(_BR_MCAST_SNOOPING, 0)),
    )
    body = IFINFO.pack(0, 0, 0, 0, 0) + nl.text(_IFLA_IFNAME, name) + nl.attribute(_IFLA_ADDRESS, mac)
    body += nl.u32(_IFLA_MTU, mtu) + linkinfo
    return [nl.message(RTM_NEWLINK, _MAKE, body), name_link(name, alias)]


def name_link(name: str, alias: str) -> bytes:
    """Set a link's alias, which is ignored in the creation request (rtnl_newlink_create)."""
    return _change_named(name, nl.attribute(_IFLA_IFALIAS, alias.encode()))


def _change_named(name: str, attributes: bytes) -> bytes:
    body = IFINFO.pack(0, 0, 0, 0, 0) + nl.text(_IFLA_IFNAME, name) + attributes
    return nl.message(RTM_NEWLINK, _SET, body)


def raise_link(index: int, mtu: int) -> bytes:
    return _change_link(index, nl.u32(_IFLA_MTU, mtu), up=True)


def enslave(index: int, bridge: int) -> list[bytes]:
    """Make a link a port of the bridge, with hairpin on."""
    return [_change_link(index, nl.u32(_IFLA_MASTER, bridge), up=True), _change_link(index, _hairpin())]


def _hairpin() -> bytes:
    mode = nl.attribute(_INFO_SLAVE_DATA, nl.u8(_BRPORT_MODE, 1))
    return nl.attribute(_IFLA_LINKINFO, nl.text(_INFO_SLAVE_KIND, "bridge") + mode)


def delete_link(name: str) -> bytes:
    return nl.message(RTM_DELLINK, nl.NLM_F_ACK, IFINFO.pack(0, 0, 0, 0, 0) + nl.text(_IFLA_IFNAME, name))


def mark_for_removal(name: str, group: int) -> bytes:
    return _change_named(name, nl.u32(_IFLA_GROUP, group))


def delete_marked(group: int) -> bytes:
    """Delete all links of a group at once: one by one, each would wait 30 ms for RCU."""
    return nl.message(RTM_DELLINK, nl.NLM_F_ACK, IFINFO.pack(0, 0, 0, 0, 0) + nl.u32(_IFLA_GROUP, group))


def delete_address(index: int, address: Interface) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = IFADDR.pack(family, address.network.prefixlen, 0, 0, index)
    body += nl.attribute(_IFA_LOCAL, address.ip.packed)
    return nl.message(RTM_DELADDR, nl.NLM_F_ACK, body)


def put_address(index: int, address: Interface) -> bytes:
    """Add an address without duplicate address detection, usable at once: IPAM keeps addresses unique."""
    packed = address.ip.packed
    scope = _RT_SCOPE_LINK if address.ip.is_link_local else _RT_SCOPE_UNIVERSE
    if address.version == 4:
        body = IFADDR.pack(socket.AF_INET, address.network.prefixlen, 0, scope, index)
        body += nl.attribute(_IFA_LOCAL, packed) + nl.attribute(_IFA_ADDRESS, packed)
        body += nl.attribute(_IFA_BROADCAST, address.network.broadcast_address.packed)
    else:
        body = IFADDR.pack(socket.AF_INET6, address.network.prefixlen, _IFA_F_NODAD, scope, index)
        body += nl.attribute(_IFA_ADDRESS, packed)
    return nl.message(RTM_NEWADDR, _PUT, body)


def deliver_loopback(index: int) -> bytes:
    """Accept answers to ::1 from this link, after NAT has restored that address.

    For a loopback address the kernel only accepts a route of the packet's input link (rt6_need_strict), and
    IPv6 has no route_localnet. Packets with ::1 on the wire are dropped before routing (ip6_rcv_core). The
    metric keeps the host's own route first, and differs from those of other bridges.
    """
    loopback = ipaddress.IPv6Address("::1").packed
    body = RTMSG.pack(
        socket.AF_INET6, 128, 0, 0, _RT_TABLE_LOCAL, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_LOCAL, 0
    )
    body += nl.attribute(_RTA_DST, loopback) + nl.u32(_RTA_OIF, index)
    return nl.message(RTM_NEWROUTE, _MAKE, body + nl.u32(_RTA_PRIORITY, _LOOPBACK_METRIC + index))


def default_route(index: int, gateway: Address) -> bytes:
    family = socket.AF_INET if gateway.version == 4 else socket.AF_INET6
    body = RTMSG.pack(family, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, 0)
    body += nl.attribute(_RTA_GATEWAY, gateway.packed) + nl.u32(_RTA_OIF, index)
    return nl.message(RTM_NEWROUTE, _MAKE, body)


def link_local_packed(mac: bytes) -> bytes:
    """The EUI-64 address of a MAC (RFC 4291, appendix A)."""
    return b"\xfe\x80" + bytes(6) + bytes((mac[0] ^ 2, mac[1], mac[2], 0xFF, 0xFE, mac[3], mac[4], mac[5]))


def link_local(mac: bytes) -> ipaddress.IPv6Interface:
    return ipaddress.IPv6Interface((link_local_packed(mac), 64))


def raise_loopback() -> bytes:
    """For a namespace whose other links are created by others."""
    return _change_link(LOOPBACK, b"", up=True)


class VethTemplate:
    """The creation request of a veth pair, encoded once; six fields are set for each pod.

    Host end: up, port of the bridge, hairpin on (with br_netfilter a pod that calls its own host port
    is bridged back to the port it came from). Pod end: `eth0` with index `PEER`, in the namespace whose
    fd is given. One queue each: otherwise veth creates one per CPU, each with its sysfs folder.
    """

    def __init__(self, bridge: int, mtu: int) -> None:
        queues = nl.u32(_IFLA_NUM_TX_QUEUES, 1) + nl.u32(_IFLA_NUM_RX_QUEUES, 1) + nl.u32(_IFLA_MTU, mtu)
        name, mac = nl.text(_IFLA_IFNAME, "n" * 15), nl.attribute(_IFLA_ADDRESS, b"m" * 6)
        # the peer's index is only used if the host end's is given too (veth_newlink)
        peer = IFINFO.pack(0, 0, PEER, 0, 0) + mac + nl.u32(_IFLA_NET_NS_FD, 0x6E6E6E6E)
        peer += nl.text(_IFLA_IFNAME, "eth0") + queues
        linkinfo = nl.text(_INFO_KIND, "veth") + nl.attribute(_INFO_DATA, nl.attribute(_VETH_INFO_PEER, peer))
        body = IFINFO.pack(0, 0, 0, _IFF_UP, _IFF_UP) + name + nl.u32(_IFLA_MASTER, bridge) + queues
        body += nl.attribute(_IFLA_LINKINFO, linkinfo)
        self._create = nl.message(RTM_NEWLINK, _MAKE, body)
        self._hairpin = _change_link(0, _hairpin())
        self._index_at = 16 + 4
        self._name_at = self._create.index(b"n" * 15)
        self._mac_at = self._create.index(b"m" * 6)
        self._fd_at = self._create.index(b"nnnn", self._mac_at)

    def requests(self, index: int, name: str, mac: bytes, netns_fd: int) -> list[bytes]:
        """`name` must have 15 characters: the template has room for exactly that."""
        create = bytearray(self._create)
        struct.pack_into("=i", create, self._index_at, index)
        create[self._name_at : self._name_at + 15] = name.encode("ascii")
        create[self._mac_at : self._mac_at + 6] = mac
        struct.pack_into("=i", create, self._fd_at, netns_fd)
        hairpin = bytearray(self._hairpin)
        struct.pack_into("=i", hairpin, self._index_at, index)
        return [bytes(create), bytes(hairpin)]


class PodTemplate:
    """Messages to send inside a pod's namespace, encoded once: lo, eth0, addresses, default routes.

    With IPv6 we set the link-local address: the kernel's own would be tentative for a second, and its probes
    would flood all pods of the bridge.
    """

    def __init__(self, networks: Sequence[PodSubnet]) -> None:
        six = any(network.gateway.version == 6 for network in networks)
        batch = _change_link(LOOPBACK, b"", up=True)
        if six:
            mode = nl.attribute(socket.AF_INET6, nl.u8(_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE))
            batch += _change_link(PEER, nl.attribute(_IFLA_AF_SPEC, mode))
        batch += _change_link(PEER, b"", up=True)
        self._link_local_at = len(batch) + _ADDRESS_AT if six else 0
        if six:
            batch += put_address(PEER, link_local(bytes(6)))
        self._slots: list[tuple[int, ...]] = []
        for network in networks:
            first = len(batch) + _ADDRESS_AT
            # IFA_LOCAL and IFA_ADDRESS follow each other in IPv4; IPv6 has the latter only
            self._slots.append((first, first + 8) if network.gateway.version == 4 else (first,))
            batch += put_address(PEER, network.gateway)
        for network in networks:
            if network.routed:
                batch += default_route(PEER, network.gateway.ip)
        self._batch = batch

    def batch(self, addresses: Sequence[bytes], mac: bytes) -> bytes:
        """`addresses`: packed, one for each network, in the same order."""
        batch = bytearray(self._batch)
        for places, address in zip(self._slots, addresses, strict=True):
            for place in places:
                batch[place : place + len(address)] = address
        if self._link_local_at:
            packed = link_local_packed(mac)
            batch[self._link_local_at : self._link_local_at + 16] = packed
        return bytes(batch)

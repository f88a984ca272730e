"""Lists the kernel's links, addresses and default routes. For start and repair, not for every pod."""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import NamedTuple

from phantom_cri.network import links
from phantom_cri.network import netlink as nl

_IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_IFALIAS = 3, 4, 10, 18, 20
_INFO_KIND = 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_OIF, _RTA_TABLE = 4, 15
_RT_TABLE_MAIN, _RTPROT_RA = 254, 9
_U32 = struct.Struct("=I")


class Link(NamedTuple):
    """`number`: ifindex; `master`: the bridge's, 0 for none; `kind`: "bridge", "veth", "" for hardware."""

    number: int
    name: str
    master: int
    mtu: int
    alias: str
    kind: str


class Address(NamedTuple):
    link: int
    interface: links.Interface


class DefaultRoute(NamedTuple):
    """`advertised`: learnt from a router advertisement (RFC 4861)."""

    link: int
    version: int
    advertised: bool


def list_links(route: nl.NetlinkSocket) -> list[Link]:
    """Raises OSError."""
    rows = route.dump(links.RTM_GETLINK, links.IFINFO.pack(0, 0, 0, 0, 0))
    return [_link(body) for _, body in rows]


def _link(body: bytes) -> Link:
    found = nl.attributes(body, links.IFINFO.size)
    info = nl.attributes(found.get(_IFLA_LINKINFO, b""), 0)
    return Link(
        number=links.IFINFO.unpack_from(body)[2],
        name=_text(found.get(_IFLA_IFNAME, b"")),
        master=_number(found.get(_IFLA_MASTER)),
        mtu=_number(found.get(_IFLA_MTU)),
        alias=_text(found.get(_IFLA_IFALIAS, b"")),
        kind=_text(info.get(_INFO_KIND, b"")),
    )


def list_addresses(route: nl.NetlinkSocket) -> list[Address]:
    """Raises OSError."""
    listed = []
    for _, body in route.dump(links.RTM_GETADDR, links.IFADDR.pack(0, 0, 0, 0, 0)):
        _, prefix, _, _, index = links.IFADDR.unpack_from(body)
        found = nl.attributes(body, links.IFADDR.size)
        packed = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
        listed.append(Address(index, ipaddress.ip_interface((packed, prefix))))
    return listed


def list_default_routes(route: nl.NetlinkSocket) -> list[DefaultRoute]:
    """Those of the main table. Raises OSError."""
    listed = []
    for family, version in ((socket.AF_INET, 4), (socket.AF_INET6, 6)):
        for _, body in route.dump(links.RTM_GETROUTE, links.RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
            _, length, _, _, table, protocol, _, _, _ = links.RTMSG.unpack_from(body)
            found = nl.attributes(body, links.RTMSG.size)
            if (
                length == 0
                and _RTA_OIF in found
                and (_number(found.get(_RTA_TABLE)) or table) == _RT_TABLE_MAIN
            ):
                listed.append(DefaultRoute(_number(found[_RTA_OIF]), version, protocol == _RTPROT_RA))
    return listed


def _number(payload: bytes | None) -> int:
    return int(_U32.unpack(payload)[0]) if payload else 0


def _text(payload: bytes) -> str:
    return payload.rstrip(b"\0").decode("utf-8", "replace")

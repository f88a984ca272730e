"""The host bridge of all pods: its addresses, forwarding, and conflicts with other interfaces.

Created or repaired at start. Interfaces of others are not changed: the bridge's alias names its owner.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from phantom_cri import errors
from phantom_cri.network import links, listing
from phantom_cri.network import netlink as nl
from phantom_cri.network.addresses import Subnet

_NO_IPV6 = (errno.EACCES, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EINVAL)
_SYSCTL = Path("/proc/sys/net")
_DEFAULT_MTU = 1500
_OWNER = "phantom-cri "


class HostBridge(NamedTuple):
    """The bridge. `features`: for each part whether it is on, and why not."""

    bridge: int
    mtu: int
    subnets: tuple[Subnet, ...]
    networks: tuple[links.PodSubnet, ...]
    features: dict[str, str]


def ensure_bridge(
    route: nl.NetlinkSocket, bridge: str, owner: str, subnets: Sequence[Subnet], mtu: int
) -> HostBridge:
    """Create or repair the bridge. Idempotent.

    owner: the alias that marks the bridge as ours. mtu: 0 for the default route's.
    Raises FailedPrecondition for a conflict with an interface that is not ours, Internal, OSError.
    """
    index, mtu = _own_bridge(route, bridge, owner, mtu)
    _refuse_overlap(route, index, subnets)
    active, features = _address_bridge(route, bridge, index, mtu, subnets)
    networks = []
    for subnet in active:
        forwarding = _forward(route, subnet.version)
        features[f"forwarding_ipv{subnet.version}"] = forwarding
        routed = subnet.version == 4 or forwarding.startswith("on")
        networks.append(links.PodSubnet(subnet.gateway, routed))
    features["bridge"] = f"on: {bridge}, mtu {mtu}"
    return HostBridge(index, mtu, tuple(active), tuple(networks), features)


def _own_bridge(route: nl.NetlinkSocket, bridge: str, owner: str, mtu: int) -> tuple[int, int]:
    by_name = {link.name: link for link in listing.list_links(route)}
    mtu = mtu or _outside_mtu(route, list(by_name.values()))
    if bridge not in by_name:
        mac = b"\x02" + hashlib.sha256(f"{owner} {bridge}".encode()).digest()[:5]
        check(f"make bridge {bridge}", route.ask(links.make_bridge(bridge, mac, mtu, owner)))
        by_name = {link.name: link for link in listing.list_links(route)}
    link = by_name[bridge]
    if link.kind == "bridge" and _is_orphan(link.alias):
        check(f"adopt bridge {bridge}", route.ask([links.name_link(bridge, owner)]))
    elif link.kind != "bridge" or link.alias != owner:
        raise errors.FailedPrecondition(
            f"network.bridge: interface {bridge} exists and is not ours ({link.kind or 'hardware'}, alias "
            f"{link.alias!r}, ours is {owner!r}): choose another name, or `ip link delete {bridge}`"
        )
    return link.number, mtu


def owner_of(state: Path) -> str:
    """The alias that marks the bridge of a daemon with this state directory; IFALIASZ is 256."""
    return f"{_OWNER}{state.absolute()}"[:255]


def _is_orphan(alias: str) -> bool:
    """Whether the state directory of its daemon is gone, so that no other daemon uses it."""
    return alias.startswith(_OWNER) and len(alias) < 255 and not Path(alias.removeprefix(_OWNER)).exists()


def _outside_mtu(route: nl.NetlinkSocket, found: Sequence[listing.Link]) -> int:
    mtus = {link.number: link.mtu for link in found}
    ways_out = [mtus[way.link] for way in listing.list_default_routes(route) if way.link in mtus]
    return min([mtu for mtu in ways_out if 1280 <= mtu <= 65535], default=_DEFAULT_MTU)


def _refuse_overlap(route: nl.NetlinkSocket, bridge: int, subnets: Sequence[Subnet]) -> None:
    for address in listing.list_addresses(route):
        for subnet in subnets:
            other = address.interface
            if (
                address.link != bridge
                and other.version == subnet.version
                and other.network.overlaps(subnet.network)
            ):
                raise errors.FailedPrecondition(
                    f"network.subnets: {subnet.network} overlaps with {other} of another interface"
                )


def _address_bridge(
    route: nl.NetlinkSocket, bridge: str, index: int, mtu: int, subnets: Sequence[Subnet]
) -> tuple[list[Subnet], dict[str, str]]:
    """Set the bridge's gateway addresses; an IP version that the kernel refuses is off, with the reason."""
    features = {f"ipv{version}": f"off: no IPv{version} subnet in network.subnets" for version in (4, 6)}
    # a pod must not be able to advertise itself to the host as a router (CVE-2020-13401)
    write_sysctl(f"ipv6/conf/{bridge}/accept_ra", "0")
    # a tentative link-local address would prevent solicitations for forwarded packets (ndisc_solicit)
    write_sysctl(f"ipv6/conf/{bridge}/accept_dad", "0")
    check(f"set bridge {bridge} up", route.ask([links.raise_link(index, mtu)]))
    wanted = {subnet.gateway for subnet in subnets}
    for address in listing.list_addresses(route):
        if (
            address.link == index
            and address.interface not in wanted
            and not address.interface.ip.is_link_local
        ):
            check(
                f"remove {address.interface} of {bridge}",
                route.ask([links.delete_address(index, address.interface)]),
            )
    active = []
    for subnet in subnets:
        answer = route.ask([links.put_address(index, subnet.gateway)])[0]
        if answer.error and subnet.version == 6 and answer.error in _NO_IPV6:
            features["ipv6"] = (
                f"off: the kernel refuses {subnet.gateway} ({nl.explain(answer)}): IPv6 is disabled here"
            )
            continue
        check(f"put {subnet.gateway} on {bridge}", [answer])
        features[f"ipv{subnet.version}"] = f"on: {subnet.network}"
        active.append(subnet)
        if subnet.version == 6:
            answer = route.ask([links.deliver_loopback(index)])[0]
            if answer.error not in (0, errno.EEXIST):
                features["ipv6"] += f", but no host ports at [::1]: {nl.explain(answer)}"
    if not active:
        raise errors.FailedPrecondition(f"network.subnets: none can be used ({features['ipv6']})")
    return active, features


def _forward(route: nl.NetlinkSocket, version: int) -> str:
    """Enable forwarding if it is off; on the whole host, since answers arrive on other interfaces."""
    key = "ipv4/ip_forward" if version == 4 else "ipv6/conf/all/forwarding"
    name = f"net.{key.replace('/', '.')}"
    if (_SYSCTL / key).read_text().strip() not in ("", "0"):
        return "on"
    advertised = [way for way in listing.list_default_routes(route) if way.advertised]
    if version == 6 and advertised:
        # the kernel deletes such routes when forwarding is enabled (rt6_purge_dflt_routers)
        return f"off: {name}=1 would delete the host's IPv6 default route, which a router advertises"
    complaint = write_sysctl(key, "1")
    return f"off: {name}: {complaint}" if complaint else f"on: {name} was set to 1"


def write_sysctl(key: str, value: str) -> str:
    """Write a key below net/ unless it has the value; returns the error, or ""."""
    path = _SYSCTL / key
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        return errors.errno_name(error.errno or 0)
    return ""


def check(operation: str, answers: Sequence[nl.Answer]) -> None:
    """Raises Internal for the first refused request, with the kernel's message if there is one.

    ResourceExhausted if the kernel has no memory or a limit is reached.
    """
    for answer in answers:
        if answer.error:
            kind = errors.ResourceExhausted if answer.error in errors.SHORTAGES else errors.Internal
            raise kind(f"network: {operation}: {nl.explain(answer)}")

"""Host ports: requests, the table of holders, and the nftables commands. All pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from phantom_cri import errors
from phantom_cri.model import PortMapping


class HostPort(NamedTuple):
    """A port of the host: `address` is canonical text, "" for every address of that IP version."""

    version: int
    protocol: str
    address: str
    port: int

    def __str__(self) -> str:
        anywhere = "0.0.0.0" if self.version == 4 else "[::]"  # noqa: S104 (text for people)
        address = f"[{self.address}]" if ":" in self.address else self.address or anywhere
        return f"{address}:{self.port}/{self.protocol}"


class Target(NamedTuple):
    """The destination: the pod's address and port."""

    ip: str
    port: int


Forwards = dict[HostPort, Target]


def forwards(ips: Sequence[str], mappings: Iterable[PortMapping]) -> Forwards:
    """The forwards of a pod's mappings. Without a host_ip: for each IP version of the pod.

    Raises InvalidArgument naming the mapping, FailedPrecondition for an IP version the pod lacks.
    """
    targets: dict[int, str] = {ipaddress.ip_address(ip).version: ip for ip in reversed(ips)}
    found: Forwards = {}
    for mapping in mappings:
        if mapping.host_port == 0:
            continue
        for name, port in (("host_port", mapping.host_port), ("container_port", mapping.container_port)):
            if not 0 < port < 65536:
                raise errors.InvalidArgument(f"port_mappings: {name} {port} is not within 1…65535")
        for version, address in _listens(mapping.host_ip, targets):
            host_port = HostPort(version, mapping.protocol, address, mapping.host_port)
            target = Target(targets[version], mapping.container_port)
            if found.setdefault(host_port, target) != target:
                raise errors.InvalidArgument(f"port_mappings: {host_port} leads to two container ports")
    return found


def _listens(host_ip: str, targets: Mapping[int, str]) -> list[tuple[int, str]]:
    if not host_ip:
        return [(version, "") for version in sorted(targets)]
    try:
        parsed = ipaddress.ip_address(host_ip)
    except ValueError as error:
        raise errors.InvalidArgument(f"port_mappings: host_ip {host_ip!r} is not an IP address") from error
    if "%" in host_ip or parsed.is_multicast:
        raise errors.InvalidArgument(f"port_mappings: host_ip {host_ip!r} cannot be listened on")
    if parsed.version not in targets:
        raise errors.FailedPrecondition(
            f"port_mappings: host_ip {host_ip} is IPv{parsed.version}, but the pod has no such address"
        )
    return [(parsed.version, "" if parsed.is_unspecified else str(parsed))]


class PortTable:
    """Which sandbox holds which host port."""

    def __init__(self) -> None:
        self._forwards: dict[str, Forwards] = {}
        self._holders: dict[tuple[int, str, int], dict[str, str]] = {}

    def claim(self, sandbox_id: str, wanted: Forwards) -> None:
        """Reserve all or none, for a sandbox without host ports.

        A port on every address and the same port on one address exclude each other.
        Raises AlreadyExists naming port and holder.
        """
        for host_port in wanted:
            for address, holder in self._holders.get(_slot(host_port), {}).items():
                if address == host_port.address or not (address and host_port.address):
                    held = host_port._replace(address=address)
                    raise errors.AlreadyExists(f"host port {host_port}: sandbox {holder} holds {held}")
        for host_port in wanted:
            self._holders.setdefault(_slot(host_port), {})[host_port.address] = sandbox_id
        self._forwards[sandbox_id] = wanted

    def held(self, sandbox_id: str) -> Forwards:
        return self._forwards.get(sandbox_id, {})

    def release(self, sandbox_id: str) -> Forwards:
        """Release the sandbox's ports and return them; empty if it is unknown."""
        held = self._forwards.pop(sandbox_id, {})
        for host_port in held:
            slot = self._holders[_slot(host_port)]
            del slot[host_port.address]
            if not slot:
                del self._holders[_slot(host_port)]
        return held

    def all(self) -> Forwards:
        return {host_port: target for held in self._forwards.values() for host_port, target in held.items()}


def _slot(host_port: HostPort) -> tuple[int, str, int]:
    return host_port.version, host_port.protocol, host_port.port


def add_elements(table: str, wanted: Forwards) -> str:
    return "".join(
        f"add element inet {table} {_map_of(at)} {{ {_key(at)} : {target.ip} . {target.port} }}\n"
        for at, target in wanted.items()
    )


def delete_elements(table: str, held: Forwards) -> str:
    return "".join(f"delete element inet {table} {_map_of(at)} {{ {_key(at)} }}\n" for at in held)


def _map_of(host_port: HostPort) -> str:
    return f"{'one' if host_port.address else 'any'}{host_port.version}"


def _key(host_port: HostPort) -> str:
    prefix = f"{host_port.address} . " if host_port.address else ""
    return f"{prefix}{host_port.protocol} . {host_port.port}"


def table_text(
    table: str,
    bridge: str,
    subnets: Sequence[str],
    masquerade: bool,
    held: Forwards,
    loopback6: bool = True,
) -> str:
    """The whole table, replaced in one transaction, so that no packet sees an incomplete one.

    All rules are here; a pod only adds and deletes elements of the maps. loopback6: host ports are also
    available at [::1]; else connections there are refused at once.
    """
    return f"""\
add table inet {table}
delete table inet {table}
table inet {table} {{
  map any4 {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map one4 {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  map any6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
  map one6 {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
  chain hostports {{
{"" if loopback6 else "    ip6 daddr ::1 return"}
    dnat ip to ip daddr . meta l4proto . th dport map @one4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @one6
    meta nfproto ipv4 dnat ip to meta l4proto . th dport map @any4
    meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @any6
  }}
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    fib daddr type local jump hostports
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    fib daddr type local jump hostports
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    oifname "{bridge}" ip saddr 127.0.0.0/8 masquerade
    oifname "{bridge}" ip6 saddr ::1 masquerade
{"".join(_source_rules(bridge, subnet, masquerade) for subnet in subnets)}  }}
  chain guard {{
    comment "route_localnet is on for host ports: no pod may use it to reach the loopback (CVE-2020-8558)"
    type filter hook prerouting priority -300; policy accept;
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop
    iifname "{bridge}" ip saddr 127.0.0.0/8 drop
  }}
}}
{add_elements(table, held)}"""


def _source_rules(bridge: str, subnet: str, masquerade: bool) -> str:
    """Between pods, through a host port, answers have to pass the host, or they have the wrong source."""
    ip, everyone = ("ip6", "ff00::/8") if ":" in subnet else ("ip", "224.0.0.0/4")
    rules = f'    oifname "{bridge}" {ip} saddr {subnet} {ip} daddr {subnet} ct status dnat masquerade\n'
    if masquerade:
        outside = f"{ip} saddr {subnet} {ip} daddr != {{ {subnet}, {everyone} }}"
        rules += f'    oifname != "{bridge}" {outside} masquerade\n'
    return rules

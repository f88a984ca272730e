"""Our nftables table in the kernel: masquerade and host ports. One thread at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from phantom_cri import errors
from phantom_cri.config import NetworkConfig
from phantom_cri.network.bridge import write_sysctl
from phantom_cri.network.conntrack import FlowTable
from phantom_cri.network.nftables import Nftables, NftablesError
from phantom_cri.network.ports import Forwards, add_elements, delete_elements, table_text

_CALL_IP6TABLES = Path("/proc/sys/net/bridge/bridge-nf-call-ip6tables")


class Firewall:
    """`unavailable_reason`: why there are no host ports, "" if there are."""

    def __init__(self, config: NetworkConfig) -> None:
        self._config = config
        self._table = f"phantom_{config.bridge}"
        self._subnets: Sequence[str] = ()
        self._nftables: Nftables | None = None
        self._flows = FlowTable()
        self._stale = ""
        self._missing = "not started"
        self._loopback = ""
        self.unavailable_reason = self._missing

    def build(self, subnets: Sequence[str], held: Forwards) -> None:
        """Create or replace the table; on failure `unavailable_reason` and `features` say why."""
        self._subnets = subnets
        self._missing = ""
        try:
            if self._nftables is None:
                self._nftables = Nftables()
            self._nftables.run(self._text(held))
        except NftablesError as error:
            self._missing = str(error)
        else:
            # only after the table's guard protects the loopback from pods
            self._loopback = write_sysctl(f"ipv4/conf/{self._config.bridge}/route_localnet", "1")
        self.unavailable_reason = self._missing or (
            "" if self._config.host_ports else "network.host_ports is false"
        )

    def add(self, wanted: Forwards, held: Forwards) -> None:
        """Open `wanted`; `held`: all open ports afterwards. Raises Internal, without a change."""
        self._change(add_elements(self._table, wanted), held)
        self._stale = self._flows.forget(wanted)

    def remove(self, gone: Forwards, held: Forwards) -> None:
        """Close `gone`; `held`: all open ports afterwards. Raises Internal."""
        self._change(delete_elements(self._table, gone), held)
        self._stale = self._flows.forget(gone)

    def _change(self, commands: str, held: Forwards) -> None:
        """If our table was flushed by others (`nft flush ruleset` is common), it is written again."""
        if self._nftables is None:
            raise errors.Internal(f"network: host ports: {self._missing}")
        try:
            self._nftables.run(commands)
        except NftablesError:
            try:
                self._nftables.run(self._text(held))
            except NftablesError as error:
                raise errors.Internal(f"network: nftables table {self._table}: {error}") from error

    def _text(self, held: Forwards) -> str:
        config, loopback6 = self._config, not _bridge_calls_netfilter()
        return table_text(self._table, config.bridge, self._subnets, config.masquerade, held, loopback6)

    def features(self) -> dict[str, str]:
        off = f"off: {self._missing}"
        masquerade = "on" if self._config.masquerade else "off: network.masquerade is false"
        host_ports = (
            "on" if not self._loopback else f"on, but not at 127.0.0.1: route_localnet: {self._loopback}"
        )
        flows = f"off: old UDP flows of host ports are not deleted: {self._stale}" if self._stale else "on"
        return {
            "conntrack": off if self._missing else flows,
            "nftables": off if self._missing else f"on: table inet {self._table}",
            "masquerade": off if self._missing else masquerade,
            "host_ports": f"off: {self.unavailable_reason}" if self.unavailable_reason else host_ports,
        }

    def dismantle(self) -> None:
        """Remove the table. Raises Internal."""
        if self._nftables is None or self._missing:
            return
        try:
            self._nftables.run(f"add table inet {self._table}\ndelete table inet {self._table}")
        except NftablesError as error:
            raise errors.Internal(f"network: delete nftables table {self._table}: {error}") from error

    def close(self) -> None:
        self._flows.close()
        if self._nftables is not None:
            self._nftables.close()
            self._nftables = None
        self._missing = self.unavailable_reason = "not started"


def _bridge_calls_netfilter() -> bool:
    """If so, NAT restores [::1] in answers already on the bridge, after which the kernel drops them."""
    try:
        return _CALL_IP6TABLES.read_text().strip() == "1"
    except OSError:  # no br_netfilter
        return False

"""Pod networking: what a driver has to do, and the values it is configured with and returns.

`builtin.BuiltinNetwork` is the driver for a node without CNI. A pool member is wired with `attach`
before anybody needs it; a claim only adds host ports with `expose`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from phantom_cri.codec import Record
from phantom_cri.model import PortMapping


class Attachment(NamedTuple):
    """A wired namespace.

    ips: the pod's addresses without prefix length, the primary one first.
    pod_batch: rtnetlink messages back to back, each with NLM_F_REQUEST and NLM_F_ACK, which a process
        inside the namespace sends one by one (netlink(7)); until then lo and eth0 are down.
    """

    ips: tuple[str, ...]
    pod_batch: bytes


class NetworkConfig(Record, frozen=True):
    """The built-in driver's settings.

    bridge: name of the bridge that the driver makes and owns; also names its nftables table.
    subnets: at most one IPv4 and one IPv6 subnet; the first one gives the primary address.
        The first host address of each is the gateway. Pods are masqueraded, so the same ULA on
        every node does no harm.
    mtu: bytes; 0 takes the MTU of the interface with the default route, else 1500.
    masquerade: hide pods behind the node's address when they talk to the outside.
    host_ports: honour host ports; needs nftables.
    """

    bridge: str = "phantom0"
    subnets: tuple[str, ...] = ("10.88.0.0/16", "fd42:7068:616e:88::/64")
    mtu: int = 0
    masquerade: bool = True
    host_ports: bool = True


class NetworkDriver(Protocol):
    """Wires sandboxes. Calls for one sandbox come one at a time; calls for different ones may overlap."""

    async def start(self, live: Mapping[str, tuple[str, ...]]) -> None:
        """Make or repair what all pods share, and undo what sandboxes not in `live` left behind.

        live: sandbox id → ips of every sandbox whose namespace still exists; one without ips counts as
        not attached. What the machine lacks does not raise: it shows in `ready` and `features`.
        Raises Internal when the state directory cannot be read or written.
        """
        ...

    async def attach(self, sandbox_id: str, netns_fd: int) -> Attachment:
        """Give the namespace behind `netns_fd` addresses and an eth0. After an error nothing is left.

        Raises FailedPrecondition while not `ready`, AlreadyExists for an attached sandbox,
        ResourceExhausted when a subnet is full, Internal with the kernel's reason.
        """
        ...

    async def expose(
        self, sandbox_id: str, ips: tuple[str, ...], port_mappings: Sequence[PortMapping]
    ) -> None:
        """Open the pod's host ports: all or, after an error, none.

        Raises InvalidArgument naming the mapping, AlreadyExists naming port and holder,
        FailedPrecondition where host ports are not to be had.
        """
        ...

    async def release(self, sandbox_id: str) -> None:
        """Take back host ports and addresses. Idempotent; does not need the namespace to exist."""
        ...

    async def dismantle(self) -> None:
        """Remove what all pods shared: after the last `release`, before `close`."""
        ...

    async def close(self) -> None:
        """Let go of what the daemon holds; pods keep their network."""
        ...

    def features(self) -> dict[str, str]:
        """Feature → "on", "on: …" or "off: why"."""
        ...

    def ready(self) -> tuple[bool, str, str]:
        """CRI's NetworkReady condition: status, reason (CamelCase, "" when ready), message."""
        ...

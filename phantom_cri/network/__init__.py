"""Pod networking: the interface of network drivers, and the values they return.

`builtin.BuiltinNetwork` is the driver for a node without CNI, `cni.driver.CniNetwork` the one for a node with
it. A pool member is connected with `attach` in advance; `join` adds the pod-specific configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from phantom_cri.codec import Record
from phantom_cri.model import SandboxConfig


class Attachment(NamedTuple):
    """A connected namespace.

    ips: the pod's addresses without prefix length, primary first; none if only `join` knows them.
    pod_batch: concatenated rtnetlink messages, each with NLM_F_REQUEST and NLM_F_ACK, which a process inside
        the namespace sends one by one (netlink(7)); until then lo is down, and eth0 if it is ours.
    """

    ips: tuple[str, ...]
    pod_batch: bytes


class NetworkStatistics(Record, frozen=True):
    """`attachments`: connected sandboxes, in pools too; `addresses`, `host_ports`: in use, 0 with CNI, whose
    plugins manage them; `leaving`: sandboxes whose network is not released yet.
    """

    attachments: int
    addresses: int
    host_ports: int
    leaving: int


class NetworkDriver(Protocol):
    """Connects sandboxes. Calls for one sandbox are sequential; those for different ones may overlap."""

    async def start(self, live: Mapping[str, tuple[str, ...]]) -> None:
        """Create or repair the shared setup, and clean up after sandboxes that are not in `live`.

        live: sandbox id → ips of every sandbox whose namespace still exists; one without ips counts as not
        attached. Missing kernel features do not raise: they are reported by `ready` and `features`.
        Raises Internal if the state directory cannot be read or written.
        """
        ...

    async def attach(self, sandbox_id: str, netns: str, *, ahead: bool) -> Attachment:
        """Give a namespace addresses and an eth0, as far as this does not depend on the pod.

        netns: a path of the namespace, valid while the sandbox's fragment lives; ahead: for a pool, the pod
        is not known yet; else `join` follows at once. After an error only resources that `release` cleans up
        are left. Raises FailedPrecondition while not `ready`, AlreadyExists for an attached sandbox,
        ResourceExhausted if a subnet is full, Internal with the kernel's reason.
        """
        ...

    async def join(self, sandbox_id: str, pod: SandboxConfig) -> tuple[str, ...]:
        """Configure an attached namespace for its pod, with host ports; returns its addresses, primary first.

        Raises InvalidArgument naming the field, AlreadyExists naming port and holder, FailedPrecondition for
        an unavailable feature, and the errors of `attach`. After an error nothing has changed, or `release`
        has to be called.
        """
        ...

    async def release(self, sandbox_id: str) -> None:
        """Release host ports and addresses. Idempotent; the namespace need not exist."""
        ...

    async def use_ranges(self, ranges: Sequence[str]) -> None:
        """The node's pod CIDRs, set by the kubelet: for later pods, if the driver uses them."""
        ...

    async def dismantle(self) -> None:
        """Remove the shared setup: after the last `release`, before `close`."""
        ...

    async def close(self) -> None:
        """Close what the daemon has open; pods keep their network."""
        ...

    def statistics(self) -> NetworkStatistics: ...

    def features(self) -> dict[str, str]:
        """Feature → "on", "on: …" or "off: why"."""
        ...

    async def ready(self) -> tuple[bool, str, str]:
        """CRI's NetworkReady condition: status, reason (CamelCase, "" when ready), message."""
        ...

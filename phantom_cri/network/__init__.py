"""Pod networking: what a driver has to do, and the values it returns.

`builtin.BuiltinNetwork` is the driver for a node without CNI, `cni.driver.CniNetwork` the one for a node with
it. A pool member is wired with `attach` before anybody needs it; `join` adds what only the pod knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from phantom_cri.codec import Record
from phantom_cri.model import SandboxConfig


class Attachment(NamedTuple):
    """A wired namespace.

    ips: the pod's addresses without prefix length, the primary one first; none where only `join` knows them.
    pod_batch: rtnetlink messages back to back, each with NLM_F_REQUEST and NLM_F_ACK, which a process
        inside the namespace sends one by one (netlink(7)); until then lo is down, and eth0 where it is ours.
    """

    ips: tuple[str, ...]
    pod_batch: bytes


class NetworkStatistics(Record, frozen=True):
    """`attachments`: sandboxes that are wired, in pools too; `addresses`, `host_ports`: taken, with CNI 0 as
    its plugins keep them; `leaving`: sandboxes whose network is not given back yet.
    """

    attachments: int
    addresses: int
    host_ports: int
    leaving: int


class NetworkDriver(Protocol):
    """Wires sandboxes. Calls for one sandbox come one at a time; calls for different ones may overlap."""

    async def start(self, live: Mapping[str, tuple[str, ...]]) -> None:
        """Make or repair what all pods share, and undo what sandboxes not in `live` left behind.

        live: sandbox id → ips of every sandbox whose namespace still exists; one without ips counts as
        not attached. What the machine lacks does not raise: it shows in `ready` and `features`.
        Raises Internal when the state directory cannot be read or written.
        """
        ...

    async def attach(self, sandbox_id: str, netns: str, *, ahead: bool) -> Attachment:
        """Give a namespace addresses and an eth0, as far as that can be done for any pod.

        netns: a path that leads to the namespace while the sandbox's fragment lives; ahead: for a pool, no
        pod is known yet; without it `join` follows at once. After an error nothing is left but what `release`
        takes back. Raises FailedPrecondition while not `ready`, AlreadyExists for an attached sandbox,
        ResourceExhausted when a subnet is full, Internal with the kernel's reason.
        """
        ...

    async def join(self, sandbox_id: str, pod: SandboxConfig) -> tuple[str, ...]:
        """Make an attached namespace the pod's, with its host ports; answers its addresses, primary first.

        Raises InvalidArgument naming the field, AlreadyExists naming port and holder, FailedPrecondition for
        what is not to be had here, and what `attach` raises. Then all of it or nothing is as before, or
        `release` is due.
        """
        ...

    async def release(self, sandbox_id: str) -> None:
        """Take back host ports and addresses. Idempotent; does not need the namespace to exist."""
        ...

    async def use_ranges(self, ranges: Sequence[str]) -> None:
        """The node's pod CIDRs, as the kubelet tells them: for pods to come, where the driver takes them."""
        ...

    async def dismantle(self) -> None:
        """Remove what all pods shared: after the last `release`, before `close`."""
        ...

    async def close(self) -> None:
        """Let go of what the daemon holds; pods keep their network."""
        ...

    def statistics(self) -> NetworkStatistics: ...

    def features(self) -> dict[str, str]:
        """Feature → "on", "on: …" or "off: why"."""
        ...

    async def ready(self) -> tuple[bool, str, str]:
        """CRI's NetworkReady condition: status, reason (CamelCase, "" when ready), message."""
        ...

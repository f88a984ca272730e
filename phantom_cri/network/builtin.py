"""The built-in network driver: bridge, veth pairs, own IPAM, host ports by nftables.

Kernel work runs in two threads, one for links and one for nftables, so that neither the event loop nor a
claim's host ports wait for the kernel's RTNL lock; address and port tables are only changed in the loop. A
dead pod's veth is removed by the kernel with its namespace: deleting it ourselves takes 30 ms (two RCU grace
periods), so it is only checked later (`_sweep`).
"""

from __future__ import annotations

import asyncio
import binascii
import errno
import functools
import hashlib
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from phantom_cri import errors
from phantom_cri.codec import replace
from phantom_cri.concurrency import to_the_end
from phantom_cri.config import NetworkConfig
from phantom_cri.model import PortMapping, SandboxConfig
from phantom_cri.network import Attachment, NetworkStatistics, bridge, links, listing
from phantom_cri.network import netlink as nl
from phantom_cri.network.addresses import AddressBook, PodNetwork, Subnet, parse_subnets
from phantom_cri.network.firewall import Firewall
from phantom_cri.network.ports import PortTable, forwards

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_SWEEP_AFTER = 2.0  # seconds; the kernel needs well under one to remove a namespace
_INDEX_BLOCK = 1 << 20
_ATTEMPTS = 4
_NAME_SAFE = bytes.maketrans(b"+/", b"-_")
_FAMILIES = {4: socket.AF_INET, 16: socket.AF_INET6}  # by length of a packed address


class BuiltinNetwork:
    """A `NetworkDriver`. All methods are called in one event loop; `close` ends its threads."""

    def __init__(self, config: NetworkConfig, state: Path) -> None:
        """state: the daemon's state directory; records go to state/network."""
        self._config = config
        self._subnets = parse_subnets(config.subnets)
        self._owner = bridge.owner_of(state)
        self._book = AddressBook(state / "network", self._subnets)
        self._ports = PortTable()
        self._firewall = Firewall(config)
        self._wiring = ThreadPoolExecutor(1, "network-links")
        self._filtering = ThreadPoolExecutor(1, "network-nftables")
        self._route: nl.NetlinkSocket | None = None
        self._host_bridge: bridge.HostBridge | None = None
        self._unready = ("NetworkNotStarted", "network: not started")
        self._departing: dict[str, tuple[str, ...]] = {}  # veth name → addresses reserved until it is gone
        self._sweeper: asyncio.Task[None] | None = None
        digest = hashlib.sha256(config.bridge.encode()).digest()
        self.link_prefix = f"ph{_letters(config.bridge)[:4]}"
        self._group = int.from_bytes(digest[:4], "big") | 1 << 31
        # far above indices that the kernel allocates, with a different block for each instance
        self._index_base = _INDEX_BLOCK * (1 + digest[0])
        self._next_index = self._index_base + int.from_bytes(os.urandom(2), "big")

    async def start(self, live: Mapping[str, tuple[str, ...]]) -> None:
        self._book.recover(live)
        self._ports = PortTable()
        for sandbox_id, record in self._book.held.items():
            self._ports.claim(sandbox_id, forwards(record.ips, record.ports))
        self._host_bridge = None
        try:
            host_bridge = await _on(self._wiring, self._ensure_bridge)
        except errors.FailedPrecondition as error:
            self._unready = ("NetworkConflict", str(error))
        except (errors.Internal, errors.ResourceExhausted, OSError) as error:
            self._unready = ("NetworkUnavailable", f"network: {error}")
        else:
            self._template = links.VethTemplate(host_bridge.bridge, host_bridge.mtu)
            self._pod_template = links.PodTemplate(host_bridge.networks)
            cidrs = [str(subnet.network) for subnet in host_bridge.subnets]
            await _on(self._filtering, self._firewall.build, cidrs, self._ports.all())
            self._host_bridge = host_bridge

    async def attach(self, sandbox_id: str, netns: str, *, ahead: bool = True) -> Attachment:
        """Does everything, ahead or not: nothing depends on the pod."""
        if self._host_bridge is None:
            raise errors.FailedPrecondition(self._unready[1])
        name = self._veth_name(sandbox_id)
        if name in self._departing:
            await self._sweep()
        packed = await self._take_addresses(sandbox_id, self._host_bridge.subnets)
        ips = tuple(socket.inet_ntop(_FAMILIES[len(address)], address) for address in packed)
        mac = (
            b"\x0a\x58" + packed[0][-4:]
        )  # derived from the address: neighbours' caches stay valid when it is reused
        record = self._book.held[sandbox_id] = PodNetwork(ips)
        try:
            await _on(self._wiring, self._wire, sandbox_id, record, name, mac, _open(netns))
        except BaseException:
            self._depart(sandbox_id)
            raise
        return Attachment(ips, self._pod_template.batch(packed, mac))

    async def join(self, sandbox_id: str, pod: SandboxConfig) -> tuple[str, ...]:
        record = self._book.held.get(sandbox_id)
        if record is None:
            raise errors.FailedPrecondition(f"join: sandbox {sandbox_id} is not attached")
        if pod.port_mappings:
            await self.expose(sandbox_id, record.ips, pod.port_mappings)
        return record.ips

    async def expose(
        self, sandbox_id: str, ips: tuple[str, ...], port_mappings: Sequence[PortMapping]
    ) -> None:
        """Open the pod's host ports: all or, on error, none.

        Raises InvalidArgument naming the mapping, AlreadyExists naming port and holder,
        FailedPrecondition if host ports are not available.
        """
        wanted = forwards(ips, port_mappings)
        if wanted == self._ports.held(sandbox_id):
            return
        record = self._book.held.get(sandbox_id)
        if record is None or record.ports:
            state = "is not attached" if record is None else "has other host ports already"
            raise errors.FailedPrecondition(f"expose: sandbox {sandbox_id} {state}")
        if self._firewall.unavailable_reason:
            raise errors.FailedPrecondition(
                f"port_mappings: no host ports on this node: {self._firewall.unavailable_reason}"
            )
        self._ports.claim(sandbox_id, wanted)
        exposed = replace(record, ports=tuple(mapping for mapping in port_mappings if mapping.host_port))
        try:
            self._book.write(sandbox_id, exposed)
            await _on(self._filtering, self._firewall.add, wanted, self._ports.all())
        except BaseException as error:
            self._ports.release(sandbox_id)
            if isinstance(error, asyncio.CancelledError):
                await _on(self._filtering, self._firewall.remove, wanted, self._ports.all())
            self._book.write(sandbox_id, record)
            raise
        self._book.held[sandbox_id] = exposed

    async def release(self, sandbox_id: str) -> None:
        held = self._ports.held(sandbox_id)
        if held:
            rest = {at: target for at, target in self._ports.all().items() if at not in held}
            await _on(self._filtering, self._firewall.remove, held, rest)
            self._ports.release(sandbox_id)
        self._depart(sandbox_id)

    def statistics(self) -> NetworkStatistics:
        return NetworkStatistics(
            attachments=len(self._book.held),
            addresses=sum(subnet.used for subnet in self._subnets),
            host_ports=len(self._ports.all()),
            leaving=len(self._departing),
        )

    def features(self) -> dict[str, str]:
        if self._host_bridge is None:
            return {"network": f"off: {self._unready[1]}"}
        return {**self._host_bridge.features, **self._firewall.features()}

    async def use_ranges(self, ranges: Sequence[str]) -> None:
        log.info(
            "pod ranges %s from the kubelet ignored: addresses are those of network.subnets",
            ", ".join(ranges),
        )

    async def ready(self) -> tuple[bool, str, str]:
        if self._host_bridge is None:
            return False, *self._unready
        return True, "", f"bridge {self._config.bridge}"

    async def close(self) -> None:
        """Close sockets and threads; pods, bridge, rules and records stay unchanged."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])
        await _on(self._filtering, self._firewall.close)
        self._wiring.shutdown()
        self._filtering.shutdown()
        self._book.close()
        if self._route is not None:
            self._route.close()
        self._host_bridge = self._route = None
        self._unready = ("NetworkClosed", "network: closed")

    async def dismantle(self) -> None:
        """Remove bridge and table: after the last `release`, before `close`."""
        await self._sweep()
        await _on(self._filtering, self._firewall.dismantle)
        if self._host_bridge is not None:
            await _on(self._wiring, self._ask, links.delete_link(self._config.bridge))
        self._host_bridge = None
        self._unready = ("NetworkNotStarted", "network: dismantled")

    async def _take_addresses(self, sandbox_id: str, subnets: Sequence[Subnet]) -> list[bytes]:
        try:
            return self._book.take(sandbox_id, subnets)
        except errors.ResourceExhausted:
            if not self._departing:
                raise
        await self._sweep()
        return self._book.take(sandbox_id, subnets)

    def _depart(self, sandbox_id: str) -> None:
        """Forget a sandbox; its addresses stay reserved until its veth is gone."""
        record = self._book.forget(sandbox_id)
        if record is None:
            return
        self._departing[self._veth_name(sandbox_id)] = record.ips
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep_later())

    async def _sweep_later(self) -> None:
        while self._departing:
            await asyncio.sleep(_SWEEP_AFTER)
            await self._sweep()

    async def _sweep(self) -> None:
        departing = dict(self._departing)
        await _on(self._wiring, self._delete_veths, list(departing))
        for name, ips in departing.items():
            if self._departing.get(name) is ips:
                del self._departing[name]
                self._book.give_back(ips)

    def _veth_name(self, sandbox_id: str) -> str:
        """15 characters: ours, this instance's (24 bits), the sandbox's (54 bits)."""
        return self.link_prefix + _letters(sandbox_id)[:9]

    # The following methods run in the thread for links.

    def _ensure_bridge(self) -> bridge.HostBridge:
        if self._route is None:
            self._route = nl.NetlinkSocket()
        config = self._config
        host_bridge = bridge.ensure_bridge(self._route, config.bridge, self._owner, self._subnets, config.mtu)
        living = {self._veth_name(sandbox_id) for sandbox_id in self._book.held}
        leftovers = []
        for link in listing.list_links(self._route):
            if (
                link.kind != "veth"
                or not link.name.startswith(self.link_prefix)
                or link.master not in (0, host_bridge.bridge)
            ):
                continue
            if link.name not in living:
                leftovers.append(link.name)
            elif link.master == 0:  # its bridge was deleted
                bridge.check(
                    f"enslave {link.name}", self._route.ask(links.enslave(link.number, host_bridge.bridge))
                )
        self._delete_veths(leftovers)
        return host_bridge

    def _wire(self, sandbox_id: str, record: PodNetwork, name: str, mac: bytes, netns_fd: int) -> None:
        try:
            self._book.create(sandbox_id, record)
            answers: list[nl.Answer] = []
            for _ in range(_ATTEMPTS):
                answers = self._ask(*self._template.requests(self._take_index(), name, mac, netns_fd))
                if answers[0].error not in (errno.EEXIST, errno.EBUSY):
                    break
                # the index may be in use, or the name, by a veth that a crash left of this sandbox
                self._ask(links.delete_link(name))
            bridge.check(f"make veth {name} of sandbox {sandbox_id}", answers)
        finally:
            os.close(netns_fd)

    def _delete_veths(self, names: Sequence[str]) -> None:
        """Delete those that still exist, all at once. Raises Internal."""
        if not names:
            return
        marked = self._ask(*(links.mark_for_removal(name, self._group) for name in names))
        if any(not answer.error for answer in marked):
            self._ask(links.delete_marked(self._group))

    def _ask(self, *requests: bytes) -> list[nl.Answer]:
        if self._route is None:
            raise errors.Internal("network: closed")
        try:
            return self._route.ask(requests)
        except OSError as error:
            raise errors.kernel_error("network: netlink", error.errno or 0) from error

    def _take_index(self) -> int:
        self._next_index = self._index_base + (self._next_index + 1) % _INDEX_BLOCK
        return self._next_index


def _open(netns: str) -> int:
    """Raises Internal, ResourceExhausted."""
    try:
        return os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise errors.kernel_error(f"network: open {netns}", error.errno or 0) from error


def _letters(text: str) -> str:
    """Twelve characters derived from a hash, valid in an interface's name (no / and no :)."""
    digest = hashlib.sha256(text.encode()).digest()[:9]
    return binascii.b2a_base64(digest, newline=False).translate(_NAME_SAFE).decode("ascii")


async def _on(executor: ThreadPoolExecutor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run in a thread. A cancelled caller waits too, since it has to clean up what the thread created."""
    loop = asyncio.get_running_loop()
    return await to_the_end(loop.run_in_executor(executor, functools.partial(work, *args, **kwargs)))

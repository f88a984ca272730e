"""Attaches one sandbox to a network and detaches it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from phantom_cri import codec, errors
from phantom_cri.concurrency import to_the_end
from phantom_cri.network.cni.attachments import Attachment, Cache
from phantom_cri.network.cni.chain import Chain, first_difference
from phantom_cri.network.cni.conflist import Fields, Network, parse
from phantom_cri.network.cni.protocol import Call, addresses


class Wiring:
    """A sandbox's namespace and its attachment. One operation at a time, as CNI requires (`lock`).

    The namespace is kept open until the last DEL: so plugins can clean up inside it after the fragment's
    death.
    """

    def __init__(
        self, cache: Cache, chain: Chain, node_capabilities: Callable[[], Fields], sandbox_id: str, netns: str
    ) -> None:
        """netns: a path that is valid while the sandbox's fragment lives."""
        self.sandbox_id = sandbox_id
        self.lock = asyncio.Lock()
        self.network: Network | None = None  # also None if an earlier daemon attached it
        self.attachment: Attachment | None = None
        self._cache, self._chain, self._node_capabilities = cache, chain, node_capabilities
        self._netns = netns
        self._netns_fd = -1

    @classmethod
    def found(
        cls, cache: Cache, chain: Chain, node_capabilities: Callable[[], Fields], attachment: Attachment
    ) -> Wiring:
        """From an earlier daemon's attachment. Its namespace is opened if it still exists."""
        wiring = cls(cache, chain, node_capabilities, attachment.sandbox_id, attachment.netns)
        wiring.attachment = attachment
        if attachment.boot_id not in ("", cache.boot_id):
            return wiring
        try:
            wiring.hold()
        except errors.PhantomError:
            return wiring
        if os.fstat(wiring._netns_fd).st_ino != attachment.netns_id:  # the pid was reused
            wiring.let_go()
        return wiring

    def hold(self) -> None:
        """Raises Internal, ResourceExhausted."""
        try:
            self._netns_fd = os.open(self._netns, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise errors.kernel_error(f"network: open {self._netns}", error.errno or 0) from error

    def let_go(self) -> None:
        if self._netns_fd >= 0:
            os.close(self._netns_fd)
            self._netns_fd = -1

    def is_on(self, network: Network) -> bool:
        return self.attachment is not None and self.attachment.network.get("name") == network.name

    async def add(self, network: Network, args: str, capabilities: Fields) -> tuple[str, ...]:
        """ADD with all plugins; returns the sandbox's addresses. After an error DEL has been run."""
        attachment = Attachment(
            sandbox_id=self.sandbox_id,
            netns=self._netns,
            netns_id=os.fstat(self._netns_fd).st_ino,
            boot_id=self._cache.boot_id,
            network=network.document(),
            origin=network.origin,
            version=await self._chain.version(network),
            args=args,
            capabilities=capabilities,
        )
        self._cache.write(attachment)
        self.network, self.attachment = network, attachment
        return await self._add_from(network, attachment, ())

    async def change(self, network: Network, args: str, capabilities: Fields) -> tuple[str, ...]:
        """Pass the pod's arguments to plugins. The first one with changed arguments, and those after it, are
        deleted and added again; those before it keep their links and addresses.
        """
        before = self.attachment
        if before is None or not before.results or not _is_same(self.network, network):
            await self.delete()
            return await self.add(network, args, capabilities)
        first = first_difference(network, before.capabilities, capabilities)
        if first == len(network.plugins):
            return before.ips
        await self._chain.delete(network, before.version, self._call(before), before.results[-1], first)
        attachment = codec.replace(before, args=args, capabilities=capabilities)
        self._cache.write(attachment)
        self.attachment = attachment
        return await self._add_from(network, attachment, before.results[:first])

    async def _add_from(
        self, network: Network, attachment: Attachment, done: tuple[Fields, ...]
    ) -> tuple[str, ...]:
        place = f"network: CNI network {network.name!r} ({network.origin})"
        call = self._call(attachment, netns=self._netns)
        try:
            results = await self._chain.add(network, attachment.version, call, done)
            ips = addresses(place, results[-1])
            self.attachment = codec.replace(attachment, results=results, ips=ips)
            self._cache.write(self.attachment)
        except BaseException as error:
            await self._undo(error)
            raise
        return ips

    async def _undo(self, reason: BaseException) -> None:
        """DEL after a failed ADD; if it fails too, the attachment stays recorded. `reason`: ADD's error."""
        try:
            await to_the_end(self.delete())
        except errors.PhantomError as error:
            reason.add_note(f"and DEL failed too: {error}")

    async def delete(self) -> None:
        """DEL with ADD's configuration; idempotent. Can be retried after an error."""
        attachment = self.attachment
        if attachment is None:
            return
        result = attachment.results[-1] if attachment.results else None
        network = self.network or parse(attachment.network, attachment.origin)
        await self._chain.delete(network, attachment.version, self._call(attachment), result)
        self._cache.erase(self.sandbox_id)
        self.attachment = self.network = None

    async def check(self) -> None:
        """CHECK. Raises the error of the first plugin that fails."""
        attachment = self.attachment
        if attachment is None or not attachment.results or self._netns_fd < 0:
            return
        network = self.network or parse(attachment.network, attachment.origin)
        call = self._call(attachment, netns=attachment.netns)
        await self._chain.check(network, attachment.version, call, attachment.results[-1])

    def _call(self, attachment: Attachment, netns: str | None = None) -> Call:
        """Without `netns` the path is our own descriptor's, which is valid after the fragment's death."""
        held = f"/proc/{os.getpid()}/fd/{self._netns_fd}" if self._netns_fd >= 0 else ""
        path = held if netns is None else netns
        capabilities = attachment.capabilities
        if not attachment.results:  # ADD may have failed for missing arguments; DEL needs them too
            capabilities = self._node_capabilities() | capabilities
        return Call(attachment.sandbox_id, path, attachment.args, capabilities)


def _is_same(one: Network | None, other: Network) -> bool:
    return one is other or (one is not None and one.document() == other.document())

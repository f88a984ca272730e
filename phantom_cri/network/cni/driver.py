"""The CNI network driver: a `NetworkDriver` that calls plugins.

Its records persist across restarts and configuration changes: each attachment is deleted with the
configuration with which it was added.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from phantom_cri import codec, errors
from phantom_cri.concurrency import Background, to_the_end
from phantom_cri.config import CniConfig
from phantom_cri.model import SandboxConfig
from phantom_cri.network import Attachment, NetworkStatistics, links
from phantom_cri.network.cni import capabilities, prewire
from phantom_cri.network.cni.attachments import Cache
from phantom_cri.network.cni.chain import Chain
from phantom_cri.network.cni.conflist import ConfFolder, Fields, Network
from phantom_cri.network.cni.orphans import end_orphans
from phantom_cri.network.cni.protocol import Caller
from phantom_cri.network.cni.wiring import Wiring

log = logging.getLogger(__name__)

NOT_READY = "NetworkPluginNotReady"

_START_PATIENCE_S = 20.0
"""Seconds that the daemon's start waits for the cleanup after earlier pods, which then continues."""

_RETRY_S = (5.0, 15.0, 60.0, 300.0)
"""Seconds between retries of a failed DEL; the last one repeats."""


class CniNetwork:
    """A `NetworkDriver`. All methods are called in one event loop."""

    def __init__(self, config: CniConfig, root: Path, state: Path) -> None:
        """root: the daemon's, for attachments, unless `config` names another folder.

        state: the daemon's state directory; stores the node's pod ranges, which the kubelet sends only once.
        """
        self._config = config
        self._folder = ConfFolder(Path(config.conf_dir))
        self._chain = Chain(Caller(tuple(map(Path, config.bin_dirs)), config.timeout_seconds))
        self._cache = Cache(Path(config.cache_dir) if config.cache_dir else root / "cni")
        self._ranges_path = state / "network" / "pod_ranges.json"
        self._ranges: tuple[str, ...] = ()
        self._wirings: dict[str, Wiring] = {}
        self._unwell: dict[str, str] = {}
        self._retried: set[str] = set()
        self._tasks = Background()

    async def start(self, live: Mapping[str, tuple[str, ...]]) -> None:
        self._ranges = self._read_ranges()
        for attachment in self._cache.read():
            wiring = Wiring.found(self._cache, self._chain, self._node_capabilities, attachment)
            self._wirings[attachment.sandbox_id] = wiring
        self._unwell.update(self._cache.newer)
        kept = [wiring for wiring in self._wirings.values() if wiring.sandbox_id in live]
        gone = [wiring for wiring in self._wirings.values() if wiring.sandbox_id not in live]
        await asyncio.to_thread(end_orphans, {wiring.sandbox_id for wiring in gone})
        cleared = self._tasks.start(self._clear(gone), "CNI: undo what is left")
        await asyncio.wait([cleared], timeout=_START_PATIENCE_S)
        if cleared.done():
            await self._collect_garbage(kept)
        else:
            log.warning(
                "CNI: plugins are slow to clean up after earlier pods; this continues while pods start"
            )
        self._tasks.start(self._check(kept), "CNI: check what is kept")

    async def _clear(self, gone: Sequence[Wiring]) -> None:
        for outcome in await asyncio.gather(*map(self._let_go, gone), return_exceptions=True):
            if isinstance(outcome, BaseException):
                log.error("failed to delete an attachment of an earlier pod, retrying later: %s", outcome)

    async def _collect_garbage(self, kept: Sequence[Wiring]) -> None:
        network = self._folder.network()
        if network is None or self._cache.newer:  # plugins would delete the resources of these
            return
        try:
            version = await self._chain.version(network)
        except errors.PhantomError as error:
            log.warning("%s", error)
            return
        valid = [wiring.sandbox_id for wiring in kept if wiring.is_on(network)]
        try:
            async with asyncio.timeout(_START_PATIENCE_S):
                for problem in await self._chain.collect_garbage(network, version, valid):
                    log.warning("%s", problem)
        except TimeoutError:
            log.warning(
                "CNI: plugins are slow to collect garbage: stopped, will be retried at the next start"
            )

    async def _check(self, kept: Sequence[Wiring]) -> None:
        """Report pods whose network was damaged while no daemon ran, in the log and in `features`."""
        for wiring in kept:
            try:
                async with wiring.lock:
                    await wiring.check()
            except errors.PhantomError as error:
                self._unwell[wiring.sandbox_id] = str(error)
                log.error("the network of sandbox %s failed its CHECK: %s", wiring.sandbox_id, error)

    async def attach(self, sandbox_id: str, netns: str, *, ahead: bool) -> Attachment:
        if sandbox_id in self._wirings:
            raise errors.AlreadyExists(f"sandbox {sandbox_id} is already attached")
        wiring = Wiring(self._cache, self._chain, self._node_capabilities, sandbox_id, netns)
        wiring.hold()
        self._wirings[sandbox_id] = wiring
        network = self._folder.network()
        if ahead and network is not None and not prewire.unavailable_reason(self._config.prewire, network):
            try:
                async with wiring.lock:
                    args = capabilities.generic_args(sandbox_id)
                    await wiring.add(network, args, declared(network, self._node_capabilities()))
            except errors.PhantomError as error:  # the pod that claims it retries, and gets the error
                log.warning(
                    "failed to attach a namespace in advance, it will be retried when a pod claims it: %s",
                    error,
                )
        # addresses are only known after `join`, which may call plugins again
        return Attachment((), links.raise_loopback())

    async def join(self, sandbox_id: str, pod: SandboxConfig) -> tuple[str, ...]:
        wiring = self._wirings.get(sandbox_id)
        if wiring is None:
            raise errors.FailedPrecondition(f"join: sandbox {sandbox_id} is not attached")
        network = self._folder.network()
        if network is None:
            raise errors.FailedPrecondition(f"network: {self._uninitialized()}")
        args = capabilities.pod_args(sandbox_id, pod)
        arguments = self._node_capabilities() | capabilities.of_pod(pod)
        async with wiring.lock:
            return await wiring.change(network, args, declared(network, arguments))

    async def release(self, sandbox_id: str) -> None:
        wiring = self._wirings.get(sandbox_id)
        if wiring is not None:
            await to_the_end(self._let_go(wiring))

    async def _let_go(self, wiring: Wiring) -> None:
        async with wiring.lock:
            try:
                await wiring.delete()
            except errors.PhantomError:
                self._try_again(wiring)
                raise
            wiring.let_go()
            self._wirings.pop(wiring.sandbox_id, None)
            self._unwell.pop(wiring.sandbox_id, None)

    def _try_again(self, wiring: Wiring) -> None:
        if wiring.sandbox_id not in self._retried:
            self._retried.add(wiring.sandbox_id)
            self._tasks.start(self._let_go_later(wiring), f"CNI: delete {wiring.sandbox_id[:12]} later")

    async def _let_go_later(self, wiring: Wiring) -> None:
        for seconds in _waits():
            await asyncio.sleep(seconds)
            try:
                await self._let_go(wiring)
            except errors.PhantomError as error:
                log.warning("%s", error)
            else:
                self._retried.discard(wiring.sandbox_id)
                return

    async def use_ranges(self, ranges: Sequence[str]) -> None:
        self._ranges = tuple(ranges)
        with _unwritten(self._ranges_path):
            self._ranges_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            codec.write_atomically(self._ranges_path, codec.to_json(self._ranges))

    def _node_capabilities(self) -> Fields:
        return capabilities.of_node(self._ranges)

    def _read_ranges(self) -> tuple[str, ...]:
        try:
            return codec.from_json(self._ranges_path.read_bytes(), tuple[str, ...])
        except FileNotFoundError:
            return ()
        except (OSError, codec.DecodeError) as error:
            log.warning(
                "%s cannot be read, pod ranges are unknown until the kubelet sends them again: %s",
                self._ranges_path,
                error,
            )
            return ()

    async def dismantle(self) -> None:
        """Does nothing: the shared setup is made by plugins, which have no verb to remove it."""

    async def close(self) -> None:
        """Stop retries; pods stay attached."""
        self._tasks.cancel()
        await self._tasks.wait()
        for wiring in self._wirings.values():
            wiring.let_go()
        self._wirings.clear()

    def statistics(self) -> NetworkStatistics:
        return NetworkStatistics(len(self._wirings), 0, 0, len(self._retried))

    def features(self) -> dict[str, str]:
        network = self._folder.network()
        if network is None:
            return {"network": f"off: {self._folder.complaint}"}
        why = prewire.unavailable_reason(self._config.prewire, network)
        found = {
            "network": f"on: CNI network {network.name}, {network.origin}",
            "prewire": f"off: {why}" if why else "on",
            "attachments": "on",
        }
        if self._folder.complaint:
            found["configuration"] = f"off: {self._folder.complaint}"
        if self._unwell:
            found["attachments"] = f"off: {'; '.join(self._unwell.values())}"
        return found

    async def ready(self) -> tuple[bool, str, str]:
        network = self._folder.network()
        if network is None:
            return False, NOT_READY, f"Network plugin returns error: {self._uninitialized()}"
        try:
            await self._chain.status(network, await self._chain.version(network))
        except errors.PhantomError as error:
            return False, NOT_READY, f"Network plugin returns error: {error}"
        complaint = f"; {self._folder.complaint}" if self._folder.complaint else ""
        return True, "", f"CNI network {network.name} of {network.origin}{complaint}"

    def _uninitialized(self) -> str:
        return f"cni plugin not initialized: {self._folder.complaint}"


def declared(network: Network, arguments: Fields) -> Fields:
    """The arguments that at least one plugin declares; others are not stored."""
    asked = frozenset[str]().union(*(plugin.capabilities for plugin in network.plugins))
    return {name: value for name, value in arguments.items() if name in asked}


def _waits() -> Iterator[float]:
    yield from _RETRY_S
    while True:
        yield _RETRY_S[-1]


@contextmanager
def _unwritten(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise errors.kernel_error(f"network: write {path}", error.errno or 0) from error

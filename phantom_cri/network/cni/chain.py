"""Calls all plugins of a network: in order for ADD and CHECK, in reverse for DEL (CNI spec, section 3)."""

from __future__ import annotations

from collections.abc import Iterable

from phantom_cri import errors
from phantom_cri.network.cni.conflist import Fields, Network
from phantom_cri.network.cni.protocol import INTERFACE, Call, Caller, arguments_for, result_of, where

_QUICK_S = 10.0
"""Timeout of VERSION and STATUS in seconds: a kubelet waits for the answer."""

_FIRST_WITH_CHECK = "0.4.0"
_FIRST_WITH_STATUS_AND_GC = "1.1.0"


class Chain:
    """Raises the errors of `Caller.call`; each names its plugin and network."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def version(self, network: Network) -> str:
        """The newest version supported by the network, its plugins and us.

        A plugin that does not report versions is assumed to support any. Raises FailedPrecondition.
        """
        common = network.versions
        for plugin in network.plugins:
            spoken = await self._caller.versions(plugin, _QUICK_S)
            if spoken:
                common = tuple(version for version in common if version in spoken)
            if not common:
                raise errors.FailedPrecondition(
                    f"network: CNI plugin {plugin.type!r} of network {network.name!r} ({network.origin}) "
                    f"supports {', '.join(sorted(spoken))}, but {', '.join(network.versions)} is needed"
                )
        return common[-1]

    async def add(
        self, network: Network, version: str, call: Call, done: tuple[Fields, ...] = ()
    ) -> tuple[Fields, ...]:
        """Add with every plugin after those whose results are `done`; returns the results of all."""
        results = done
        for plugin in network.plugins[len(done) :]:
            previous = results[-1] if results else None
            answer = await self._caller.call("ADD", network, plugin, version, call, previous=previous)
            results = (*results, result_of(where("ADD", network, plugin), answer))
        return results

    async def delete(
        self, network: Network, version: str, call: Call, result: Fields | None, first: int = 0
    ) -> None:
        """DEL with the plugins from the last to number `first`. result: ADD's result, None if it failed."""
        for plugin in reversed(network.plugins[first:]):
            await self._caller.call("DEL", network, plugin, version, call, previous=result)

    async def check(self, network: Network, version: str, call: Call, result: Fields) -> None:
        if network.disable_check or version < _FIRST_WITH_CHECK:
            return
        for plugin in network.plugins:
            await self._caller.call("CHECK", network, plugin, version, call, previous=result)

    async def status(self, network: Network, version: str) -> None:
        """Raises the error of a plugin that cannot accept another pod; does nothing before version 1.1.0."""
        for plugin in network.plugins:
            self._caller.find(plugin.type)
            if version >= _FIRST_WITH_STATUS_AND_GC:
                await self._caller.call("STATUS", network, plugin, version, Call(), timeout_s=_QUICK_S)

    async def collect_garbage(
        self, network: Network, version: str, valid: Iterable[str]
    ) -> list[errors.PhantomError]:
        """Let plugins delete resources of sandboxes that are not in `valid`; returns errors.

        No ADD or DEL may run at the same time.
        """
        if network.disable_gc or version < _FIRST_WITH_STATUS_AND_GC:
            return []
        attachments = [{"containerID": sandbox_id, "ifname": INTERFACE} for sandbox_id in valid]
        # the second key is for plugins built with libcni 1.2.0 to 1.2.2
        extra = {"cni.dev/valid-attachments": attachments, "cni.dev/attachments": attachments}
        problems = []
        for plugin in network.plugins:
            try:
                await self._caller.call("GC", network, plugin, version, Call(), extra=extra)
            except errors.PhantomError as error:
                problems.append(error)
        return problems


def first_difference(network: Network, given: Fields, wanted: Fields) -> int:
    """Index of the first plugin whose capability arguments changed; the number of plugins if none did."""
    for number, plugin in enumerate(network.plugins):
        if arguments_for(plugin, given) != arguments_for(plugin, wanted):
            return number
    return len(network.plugins)

"""Fragments that are there before a pod is: those that its namespaces allow.

containerd makes a pod's network before anybody here is asked. So a warm fragment either waits in the network
of the host, from where it joins the pod's, or has a new one with nothing but loopback, as `ctr run` wants it.
"""

from __future__ import annotations

from phantom_cri.fragments.handle import FragmentHandle
from phantom_cri.pools import Pool
from shim import pods
from shim.node import Node
from shim.oci_spec import HOST, NEW, Spaces

MAX_AGE_S = 3600.0


class Warm:
    """A pool for each kind of network, filled from the first pod on that wants that kind."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._pools: dict[str, Pool[FragmentHandle]] = {}

    async def obtain(self, wanted: Spaces) -> FragmentHandle:
        """A fragment for a pod with these namespaces, which it joins as far as they are there already."""
        reason = misfit(wanted)
        network = NEW if wanted.network == NEW else HOST
        if not reason:
            claimed = self._pool(network).claim()
            if claimed is not None:
                return claimed
            reason = "pool_empty" if self._node.pool_size else "pool_disabled"
        self._node.metrics.cold_start(f"shim_{reason}")
        return await pods.spawn(self._node, wanted)

    def _pool(self, network: str) -> Pool[FragmentHandle]:
        if network not in self._pools:
            spaces = Spaces(pid=NEW, network=network, ipc=NEW, uts=NEW)

            async def spawn() -> FragmentHandle:
                fragment = await pods.spawn(self._node, spaces)
                fragment.on_death = pool.drop_dead
                return fragment

            pool = Pool(
                f"shim, {network} network",
                self._node.pool_size,
                max_age=MAX_AGE_S,
                spawn=spawn,
                end=pods.end_fragment,
                check=FragmentHandle.check,
            )
            pool.start()
            self._pools[network] = pool
        return self._pools[network]

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.stop()


def misfit(wanted: Spaces) -> str:
    """Why no warm fragment fits, as a metric's label: "host_pid", "given_ipc+given_uts"; "" if one does."""
    others = [(kind, getattr(wanted, kind)) for kind in ("pid", "ipc", "uts")]
    return "+".join(
        f"{'host' if where == HOST else 'given'}_{kind}" for kind, where in others if where != NEW
    )

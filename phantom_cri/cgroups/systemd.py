"""cgroup v2 under systemd: systemd owns the tree, and every container gets a scope that is delegated to us.

A scope needs a process when it is created, and systemd removes it with its last process. A container's
process is started in its cgroup (CLONE_INTO_CGROUP), so the cgroup has to exist before it; and after it has
ended, the fragment still reads its OOM counter. So a sleeping process keeps the scope alive, in its own
cgroup below the scope, until it is killed at the container's end. Everything inside a delegated scope is
ours; the limits of the scope itself are also set through systemd, since systemd writes them again when it
reloads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
from collections.abc import Sequence

from phantom_cri.cgroups.base import REMOVE_TIMEOUT_S, CgroupStatistics
from phantom_cri.cgroups.devices import DeviceRule
from phantom_cri.cgroups.paths import member_name, relative
from phantom_cri.cgroups.processes import deadline_after, kill_listed, wait_until_empty
from phantom_cri.cgroups.settings import write_values
from phantom_cri.cgroups.slices import properties, slice_of, slice_path
from phantom_cri.cgroups.tree import Tree
from phantom_cri.cgroups.units import Units
from phantom_cri.cgroups.v2 import V2Cgroups
from phantom_cri.errors import FailedPrecondition, PhantomError, kernel_error
from phantom_cri.model import Resources

log = logging.getLogger(__name__)

_SLEEPER = ("/bin/sleep", "infinity")
_PLACE = "phantom-place"


class SystemdCgroups(V2Cgroups):
    driver = "systemd"

    def __init__(self, tree: Tree, units: Units) -> None:
        super().__init__(tree)
        self._units = units
        self._holders: dict[str, subprocess.Popen[bytes]] = {}

    def statistics(self) -> CgroupStatistics:
        return CgroupStatistics(self._units.jobs, len(self._holders))

    def parent(self, cgroup_parent: str) -> str:
        return slice_path(slice_of(cgroup_parent))

    def member(self, cgroup_parent: str, member_id: str) -> str:
        return f"{self.parent(cgroup_parent)}/phantom-{member_name(member_id)}.scope"

    def fragments_path(self, default_parent: str) -> str:
        """Unit names are unique on a node, across slices, so the name contains the daemon's slice."""
        name = slice_of(default_parent)
        return f"{slice_path(name)}/{name.removesuffix('.slice')}-fragments.scope"

    async def create_async(
        self, path: str, resources: Resources, devices: Sequence[DeviceRule] | None
    ) -> None:
        name = relative(path)
        settings = self._settings(resources, fresh=True)
        unit, slice_name = _unit_and_slice(name)
        holder = self._holders[name] = _sleeper()
        try:
            await self._units.start_scope(unit, slice_name, holder.pid, properties(settings))
            self._settle(name, holder)
            self._hand_down(name, settings)
            write_values(self._tree_of, name, settings)
            if devices is not None:
                self._restrict_devices(name, devices)
        except OSError as error:
            self._give_up(name)
            raise kernel_error(f"cgroup {path}: make", error.errno or 0) from error
        except BaseException:
            self._give_up(name)  # without its process the scope is removed
            raise

    def _settle(self, name: str, holder: subprocess.Popen[bytes]) -> None:
        place = f"{name}/{_PLACE}"
        if not self._tree.has(place, "cgroup.procs"):
            self._tree.mkdir(place)
        self._tree.write(place, "cgroup.procs", str(holder.pid))
        # An OOM kill of the whole cgroup (memory.oom.group) spares processes with this score.
        with contextlib.suppress(PermissionError), open(f"/proc/{holder.pid}/oom_score_adj", "w") as score:
            score.write("-1000")

    def _give_up(self, name: str) -> None:
        """Kill the sleeper of a scope, also an earlier daemon's; idempotent."""
        with contextlib.suppress(OSError):
            self._tree.write(f"{name}/{_PLACE}", "cgroup.kill", "1")
        holder = self._holders.pop(name, None)
        if holder is not None:
            holder.kill()
            holder.wait()

    async def keep(self, path: str) -> None:
        if not self.exists(path):
            await self.create_async(path, Resources(), None)
            return
        name = relative(path)
        earlier = self._tree.pids(
            f"{name}/{_PLACE}"
        )  # an earlier daemon's, only after ours was added, so that the scope is never empty
        holder = self._holders[name] = _sleeper()
        self._settle(name, holder)
        kill_listed(earlier)

    async def update_async(self, path: str, resources: Resources) -> None:
        """The limits written here apply at once; systemd's copy is applied when systemd reloads."""
        await super().update_async(path, resources)
        unit, _ = _unit_and_slice(relative(path))
        try:
            await self._units.change(unit, properties(self._settings(resources, fresh=False)))
        except PhantomError as error:
            log.warning("limits of %s are lost when systemd reloads, storing them failed: %s", unit, error)

    async def remove_async(self, path: str, timeout_s: float = REMOVE_TIMEOUT_S) -> None:
        """systemd has to see the cgroup empty before it is removed, or it keeps the scope listed."""
        name, deadline = relative(path), deadline_after(timeout_s)
        self._give_up(name)
        while pids := self.pids(path):
            if not await asyncio.to_thread(wait_until_empty, self.trees, name, deadline):
                raise FailedPrecondition(f"cgroup {path}: remove: processes {sorted(pids)} are still in it")
        await self._units.stop(_unit_and_slice(name)[0])
        await super().remove_async(path, timeout_s)

    def close(self) -> None:
        self._units.close()
        super().close()


def _unit_and_slice(name: str) -> tuple[str, str]:
    parents, _, unit = name.rpartition("/")
    return unit, parents.rpartition("/")[2]


def _sleeper() -> subprocess.Popen[bytes]:
    null = subprocess.DEVNULL
    try:
        return subprocess.Popen(
            _SLEEPER, stdin=null, stdout=null, stderr=null, cwd="/", start_new_session=True
        )
    except OSError as error:
        raise kernel_error(f"start {_SLEEPER[0]}", error.errno or 0) from error

"""cgroup v2: one hierarchy, controllers enabled by `cgroup.subtree_control`, devices by BPF.

Needs Linux 5.14 for `cgroup.kill`. Source: Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from phantom_cri.cgroups.base import (
    ABSENT,
    KILL_TIMEOUT_S,
    Cgroups,
    LaunchFds,
    open_together,
)
from phantom_cri.cgroups.device_filter import DeviceFilters
from phantom_cri.cgroups.devices import DeviceRule
from phantom_cri.cgroups.limits import Setting, v2_settings
from phantom_cri.cgroups.paths import exec_name, parents, relative
from phantom_cri.cgroups.processes import deadline_after, wait_for_exit
from phantom_cri.cgroups.tree import Tree
from phantom_cri.cgroups.usage import huge_page_sizes, v2_usage
from phantom_cri.errors import DeadlineExceeded, FailedPrecondition, kernel_error
from phantom_cri.model import Resources
from phantom_cri.usage import CgroupUsage, HugePages

# Controllers whose limits or numbers we use, if the node has them: enabled in every cgroup on the way down,
# so that there are stats without a limit too.
_WANTED = ("cpu", "cpuset", "hugetlb", "io", "memory", "pids")


class V2Cgroups(Cgroups):
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.trees = (tree,)
        self.version = "v2"
        self.controllers = tree.controllers
        self._wanted = frozenset(_WANTED) & tree.controllers
        self._devices = DeviceFilters()

    def features(self) -> dict[str, bool]:
        return {
            "atomic_kill": True,
            "clone_into": True,
            "devices": True,
            "hugetlb": "hugetlb" in self.controllers,
            "psi": self._tree.has(".", "cpu.pressure"),
            # The root has no memory.swap.max to check; /proc/swaps exists if swap is compiled in.
            "swap": "memory" in self.controllers and os.path.exists("/proc/swaps"),
            "unified_keys": True,
        }

    def launch_fds(self, path: str) -> LaunchFds:
        name = relative(path)
        return self._launch_fds(name, name)

    def exec_child(self, path: str, exec_id: str) -> LaunchFds:
        name = relative(path)
        child = f"{name}/{exec_name(exec_id)}"
        self._make_exec_child(name, child)
        try:
            return self._launch_fds(name, child)
        except BaseException:
            self._tree.rmdir(child)
            raise

    def _launch_fds(self, name: str, place: str) -> LaunchFds:
        openers = [
            partial(self._tree.open_directory, place),
            partial(self._tree.open_for_writing, place, "cgroup.kill"),
        ]
        if "memory" in self.controllers:
            openers.append(partial(self._tree.open_for_reading, name, "memory.events"))
        clone_into, kill, *oom = open_together(name, openers)
        return LaunchFds(clone_into, (), kill, oom[0] if oom else ABSENT)

    def kill(self, path: str, timeout_s: float = KILL_TIMEOUT_S) -> None:
        kill_at_once(self._tree, relative(path), deadline_after(timeout_s))

    def _usage(self, name: str, detailed: bool) -> CgroupUsage:
        return v2_usage(self._tree, name, self.controllers, detailed)

    def _huge_pages(self, name: str) -> Iterator[HugePages]:
        if "hugetlb" in self.controllers:
            for size in huge_page_sizes():
                # v2 has no high-water mark for them.
                yield HugePages(size, int(self._tree.read(name, f"hugetlb.{size}.current")), None)

    def close(self) -> None:
        self._devices.close()
        super().close()

    def _settings(self, resources: Resources, *, fresh: bool) -> list[Setting]:
        return v2_settings(resources, fresh=fresh, controllers=self.controllers)

    def _prepare(self, name: str, settings: Sequence[Setting], made: list[tuple[Tree, str]]) -> None:
        self._tree.make(name, made)
        self._hand_down(name, settings)

    def _hand_down(self, name: str, settings: Sequence[Setting]) -> None:
        """Ensure that the cgroup has the controllers that its settings need, and those in _WANTED."""
        needed = self._wanted | {s.controller for s in settings if s.controller in self.controllers}
        missing = needed - set(self._tree.read(name, "cgroup.controllers").split())
        if missing:
            self._enable(name, missing)

    def _make_room(self, name: str, settings: Sequence[Setting]) -> None:
        """A lower memory.max makes the kernel kill until usage fits; memory.high only makes it reclaim."""
        limits = [setting for setting in settings if setting.file == "memory.max" and setting.value != "max"]
        if not limits or "memory" not in self.controllers:
            return
        if int(self._tree.read(name, "memory.current")) <= int(limits[-1].value):
            return
        before = self._tree.read(name, "memory.high").strip()
        try:
            self._tree.write(name, "memory.high", limits[-1].value)
        finally:
            self._tree.write(name, "memory.high", before)
        used = int(self._tree.read(name, "memory.current"))
        if used > int(limits[-1].value):
            raise FailedPrecondition(
                f"linux.resources.{limits[-1].field} {limits[-1].value}: cgroup /{name} uses {used} bytes, "
                "of which no more can be reclaimed"
            )

    def _enable(self, name: str, missing: Iterable[str]) -> None:
        """Enable controllers from the root down. Impossible for a cgroup with processes (cgroup-v2.rst)."""
        value = " ".join(f"+{controller}" for controller in sorted(missing))
        for parent in (".", *parents(name)):
            try:
                self._tree.write(parent, "cgroup.subtree_control", value)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    raise FailedPrecondition(
                        f"cgroup /{name}: cgroup.subtree_control of /{parent}: {value!r}: it holds processes"
                    ) from error
                raise

    def _restrict_devices(self, name: str, rules: Sequence[DeviceRule]) -> None:
        fd = self._tree.open_directory(name)
        try:
            self._devices.apply(rules, fd)
        finally:
            os.close(fd)

    def _tree_of(self, controller: str) -> Tree | None:
        return self._tree if controller in self.controllers else None

    @property
    def _process_tree(self) -> Tree:
        return self._tree

    @property
    def _exec_tree(self) -> Tree:
        return self._tree


def kill_at_once(tree: Tree, name: str, deadline: float) -> None:
    """`cgroup.kill` kills everything below, concurrent forks included; then wait until all have exited.

    Raises DeadlineExceeded naming the survivors (in an uninterruptible sleep).
    """
    try:
        tree.write(name, "cgroup.kill", "1")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return
        raise kernel_error(f"cgroup /{name}: write cgroup.kill", error.errno or 0) from error
    while pids := tree.pids(name):
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(f"cgroup /{name}: kill: processes {sorted(pids)} are still alive")
        wait_for_exit(pids, deadline)

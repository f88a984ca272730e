"""cgroup v1, and hybrid: v1's controllers with an empty v2 tree beside them.

Hybrid uses that v2 tree for what v1 cannot do: starting a process in a cgroup, and killing a cgroup as one.
It has no limits, and nobody else uses the parents that we create in it, so the pod's cgroup there is removed
with its last member.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Sequence
from functools import partial

from phantom_cri.cgroups.base import (
    ABSENT,
    KILL_TIMEOUT_S,
    Cgroups,
    LaunchFds,
    open_together,
)
from phantom_cri.cgroups.devices import DeviceRule, v1_lines
from phantom_cri.cgroups.limits import Setting, v1_settings
from phantom_cri.cgroups.paths import exec_name, relative
from phantom_cri.cgroups.processes import deadline_after, kill_listed, wait_for_exit
from phantom_cri.cgroups.tree import Tree
from phantom_cri.cgroups.usage import huge_page_sizes, v1_usage
from phantom_cri.cgroups.v2 import kill_at_once
from phantom_cri.errors import DeadlineExceeded, FailedPrecondition, kernel_error
from phantom_cri.model import Resources
from phantom_cri.usage import CgroupUsage, HugePages

_CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")


class CpusetTree(Tree):
    """A new v1 cpuset is empty and refuses processes (ENOSPC) until its sets are filled from the parent."""

    def on_new_parent(self, path: str) -> None:
        self.fill(path)
        # From now on the kernel copies the sets into every child (cgroup-v1/cpusets.rst, clone_children).
        self.write(path, "cgroup.clone_children", "1")

    def fill(self, path: str) -> None:
        """Copy the parent's sets; does nothing if they were inherited."""
        if self.read(path, "cpuset.cpus").strip() and self.read(path, "cpuset.mems").strip():
            return
        parent = path.rpartition("/")[0] or "."
        for file in _CPUSET_FILES:
            value = self.read(parent, file).strip()
            if not value:
                raise FailedPrecondition(f"cgroup /{path}: the parent's {file} is empty")
            self.write(path, file, value)


class V1Cgroups(Cgroups):
    """`trees` are the v1 hierarchies; `unified` is the v2 one of a hybrid node."""

    def __init__(self, trees: Sequence[Tree], unified: Tree | None) -> None:
        self._v1_trees = tuple(trees)
        self._unified = unified
        self.trees = self._v1_trees if unified is None else (*self._v1_trees, unified)
        self.version = "v1" if unified is None else "hybrid"
        self._by_controller = {controller: tree for tree in trees for controller in tree.controllers}
        self.controllers = frozenset(self._by_controller)

    def features(self) -> dict[str, bool]:
        memory = self._tree_of("memory")
        return {
            "atomic_kill": self._unified is not None,
            "clone_into": self._unified is not None,
            "devices": "devices" in self.controllers,
            "hugetlb": "hugetlb" in self.controllers,
            "psi": self._unified is not None and self._unified.has(".", "cpu.pressure"),
            "swap": memory is not None and memory.has(".", "memory.memsw.limit_in_bytes"),
            "unified_keys": False,
        }

    def view(self, path: str) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
        name = relative(path)
        folders = tuple((os.path.basename(tree.root), f"{tree.root}/{name}") for tree in self._v1_trees)
        links = tuple(
            (controller, os.path.basename(tree.root))
            for controller, tree in sorted(self._by_controller.items())
            if "," in os.path.basename(tree.root)
        )
        return folders, links

    def launch_fds(self, path: str) -> LaunchFds:
        name = relative(path)
        return self._launch_fds(name, name)

    def _launch_fds(self, name: str, place: str) -> LaunchFds:
        """`place`: the cgroup in the exec tree, which is `name` or a child of it."""
        openers = [
            partial(tree.open_for_writing, place if tree is self._exec_tree else name, "tasks")
            for tree in self._v1_trees
        ]
        if self._unified is None:
            openers.append(partial(self._exec_tree.open_for_reading, place, "cgroup.procs"))
        else:
            openers.append(partial(self._unified.open_for_writing, place, "cgroup.kill"))
            openers.append(partial(self._unified.open_directory, place))
        memory = self._tree_of("memory")
        if memory is not None:
            openers.append(partial(memory.open_for_reading, name, "memory.oom_control"))
        fds = open_together(name, openers)
        oom = fds.pop() if memory is not None else ABSENT
        clone_into = fds.pop() if self._unified is not None else None
        kill = fds.pop()
        return LaunchFds(clone_into, tuple(fds), kill, oom)

    def exec_child(self, path: str, exec_id: str) -> LaunchFds:
        name = relative(path)
        child = f"{name}/{exec_name(exec_id)}"
        self._make_exec_child(name, child)
        try:
            return self._launch_fds(name, child)
        except BaseException:
            self._exec_tree.rmdir(child)
            raise

    def kill(self, path: str, timeout_s: float = KILL_TIMEOUT_S) -> None:
        name, deadline = relative(path), deadline_after(timeout_s)
        if self._unified is not None:
            kill_at_once(self._unified, name, deadline)
            return
        tree = self._process_tree
        while pids := tree.pids(name):
            if time.monotonic() >= deadline:
                raise DeadlineExceeded(f"cgroup {path}: kill: processes {sorted(pids)} are still alive")
            self._kill_frozen(name)
            wait_for_exit(pids, deadline)

    def _usage(self, name: str, detailed: bool) -> CgroupUsage:
        return v1_usage(self._by_controller, self._unified, name, detailed)

    def _huge_pages(self, name: str) -> Iterator[HugePages]:
        if (tree := self._tree_of("hugetlb")) is not None:
            for size in huge_page_sizes():
                used = int(tree.read(name, f"hugetlb.{size}.usage_in_bytes"))
                yield HugePages(size, used, int(tree.read(name, f"hugetlb.{size}.max_usage_in_bytes")))

    def _settings(self, resources: Resources, *, fresh: bool) -> list[Setting]:
        return v1_settings(resources, fresh=fresh)

    def _make_room(self, name: str, settings: Sequence[Setting]) -> None:
        """Nothing to do: v1 refuses a limit below what cannot be reclaimed (EBUSY)."""

    def _prepare(self, name: str, settings: Sequence[Setting], made: list[tuple[Tree, str]]) -> None:
        for tree in self.trees:
            tree.make(name, made)
            if isinstance(tree, CpusetTree):
                tree.fill(name)

    def _restrict_devices(self, name: str, rules: Sequence[DeviceRule]) -> None:
        tree = self._tree_of("devices")
        if tree is None:
            raise FailedPrecondition(f"cgroup /{name}: device rules: this node has no 'devices' controller")
        lines = v1_lines(tuple(rules))
        tree.write(name, "devices.deny", "a")
        tree.write_each(name, "devices.allow", lines)

    def _tree_of(self, controller: str) -> Tree | None:
        return self._by_controller.get(controller)

    @property
    def _process_tree(self) -> Tree:
        return self._exec_tree

    @property
    def _exec_tree(self) -> Tree:
        if self._unified is not None:
            return self._unified
        return self._by_controller.get("freezer") or self._v1_trees[0]

    def _try_remove(self, name: str) -> bool:
        gone = super()._try_remove(name)
        pod = name.rpartition("/")[0]
        if gone and self._unified is not None and "/" in pod:
            with contextlib.suppress(OSError):
                self._unified.rmdir(pod)
        return gone

    def _kill_frozen(self, name: str) -> None:
        """Stop the processes first, so that none forks away between being listed and being killed."""
        freezer = self._by_controller.get("freezer")
        try:
            if freezer is not None:
                freezer.write(name, "freezer.state", "FROZEN")
            try:
                kill_listed(self._process_tree.pids(name))
            finally:
                if freezer is not None:
                    freezer.write(name, "freezer.state", "THAWED")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise kernel_error(f"cgroup /{name}: freeze and kill", error.errno or 0) from error

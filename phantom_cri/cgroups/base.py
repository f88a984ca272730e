"""The interface of all cgroup drivers, whichever cgroup version the node has.

All calls are plain, quick system calls and hold no state between them, so they may be made from any thread.
`*_async` are for the event loop: they run inline if nothing can block, else on a thread.
Paths are the kubelet's (`/kubepods/burstable/pod1/abc`). Errors name path, field and value.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Literal, NamedTuple

from phantom_cri.cgroups.checks import check_host, check_ranges
from phantom_cri.cgroups.devices import DeviceRule
from phantom_cri.cgroups.freezer import Freezer
from phantom_cri.cgroups.limits import Setting
from phantom_cri.cgroups.open_files import count_open_files
from phantom_cri.cgroups.paths import DEFAULT_PARENT, exec_name, pod_path, relative
from phantom_cri.cgroups.processes import deadline_after, wait_until_empty
from phantom_cri.cgroups.settings import missing_controller, replace_values, write_values
from phantom_cri.cgroups.tree import Tree
from phantom_cri.codec import Record
from phantom_cri.errors import AlreadyExists, FailedPrecondition, NotFound, kernel_error
from phantom_cri.model import CgroupDriver, Resources
from phantom_cri.usage import CgroupUsage, HugePages

Version = Literal["v1", "hybrid", "v2"]
KILL_TIMEOUT_S = 10.0
REMOVE_TIMEOUT_S = 5.0
ABSENT = -1
_FRAGMENTS = "fragments"


class LaunchFds(NamedTuple):
    """Descriptors (close-on-exec) to put a process into a cgroup and to monitor it. The caller closes them.

    `clone_into`: for CLONE_INTO_CGROUP (v2, and the v2 side of hybrid); None on pure v1.
    `procs`: one file for each v1 hierarchy; the new process writes "0" to each while it has a single thread.
        They are `tasks` files, not `cgroup.procs`: for the writer's own thread the kernel skips the write
        side of cgroup_threadgroup_rwsem (kernel/cgroup/cgroup.c, cgroup_procs_write_start), and with it an
        RCU grace period: 7 ms on an idle node, during which nothing on the node can fork.
    `kill`: with `clone_into`, `cgroup.kill` open for writing ("1" kills all, at once). Without it,
        `cgroup.procs` open for reading: signal what it lists until it lists nothing.
    `oom`: a file with a line `oom_kill N`; ABSENT where the node has no memory controller.
    """

    clone_into: int | None
    procs: tuple[int, ...]
    kill: int
    oom: int

    def by_name(self) -> dict[str, int]:
        """As plans call them, in the order of their slots."""
        found = {"kill": self.kill}
        if self.oom != ABSENT:
            found["oom"] = self.oom
        if self.clone_into is not None:
            found["cgroup"] = self.clone_into
        return found | {f"procs{index}": procs for index, procs in enumerate(self.procs)}

    def close(self) -> None:
        for fd in (self.clone_into, *self.procs, self.kill, self.oom):
            if fd is not None and fd != ABSENT:
                os.close(fd)

    def __enter__(self) -> LaunchFds:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class CgroupStatistics(Record, frozen=True):
    """State held between calls; only the systemd driver has any. `jobs`: unit jobs being waited for;
    `sleepers`: our processes that keep scopes alive.
    """

    jobs: int
    sleepers: int


class Cgroups(ABC):
    """One node's cgroups. `controllers`: all usable ones, in any hierarchy."""

    version: Version
    driver: CgroupDriver = "cgroupfs"
    controllers: frozenset[str]
    trees: tuple[Tree, ...]

    @abstractmethod
    def features(self) -> dict[str, bool]:
        """Features, tested by trying them, for `phantom doctor` and CRI Status."""

    def statistics(self) -> CgroupStatistics:
        return CgroupStatistics(0, 0)

    @abstractmethod
    def launch_fds(self, path: str) -> LaunchFds:
        """Raises NotFound."""

    @abstractmethod
    def kill(self, path: str, timeout_s: float = KILL_TIMEOUT_S) -> None:
        """SIGKILL every process in `path` and below; returns when none is left. `path` may be missing.

        Raises DeadlineExceeded naming the survivors.
        """

    @abstractmethod
    def exec_child(self, path: str, exec_id: str) -> LaunchFds:
        """A cgroup of its own for one exec inside a container's, so that all its processes can be killed.

        It has no limits of its own and counts towards the container's. Raises NotFound, AlreadyExists.
        """

    def usage(self, path: str, *, detailed: bool = False) -> CgroupUsage:
        """What `path` and all below it use. Raises NotFound.

        `detailed` adds what only metrics need: peaks, events, io by device, huge pages, open files.
        """
        name = relative(path)
        try:
            found = self._usage(name, detailed)
            if detailed:
                pids = self._process_tree.pids(name)
                files, sockets = count_open_files(pids)
                found = found._replace(
                    tasks=found.tasks._replace(processes=len(pids), files=files, sockets=sockets),
                    huge_pages=tuple(self._huge_pages(name)),
                )
            return found
        except FileNotFoundError as error:
            raise NotFound(f"cgroup {path}: there is none") from error
        except OSError as error:
            if error.errno == errno.ENODEV:  # removed between open and read (kernfs)
                raise NotFound(f"cgroup {path}: it is gone") from error
            raise kernel_error(f"cgroup {path}: read usage", error.errno or 0) from error

    @abstractmethod
    def _usage(self, name: str, detailed: bool) -> CgroupUsage:
        """Raises OSError."""

    @abstractmethod
    def _huge_pages(self, name: str) -> Iterator[HugePages]:
        """Raises OSError."""

    @abstractmethod
    def _settings(self, resources: Resources, *, fresh: bool) -> list[Setting]: ...

    @abstractmethod
    def _prepare(self, name: str, settings: Sequence[Setting], made: list[tuple[Tree, str]]) -> None:
        """Create the cgroup in every hierarchy, ready for processes and the settings' controllers."""

    @abstractmethod
    def _restrict_devices(self, name: str, rules: Sequence[DeviceRule]) -> None: ...

    @abstractmethod
    def _tree_of(self, controller: str) -> Tree | None: ...

    @property
    @abstractmethod
    def _process_tree(self) -> Tree:
        """The hierarchy whose `cgroup.procs` is used to list a cgroup's processes."""

    @property
    @abstractmethod
    def _exec_tree(self) -> Tree:
        """The only hierarchy in which an exec gets a child cgroup."""

    def parent(self, cgroup_parent: str) -> str:
        """A pod's `cgroup_parent` (empty: DEFAULT_PARENT) as a path. Raises InvalidArgument."""
        return f"/{relative(cgroup_parent or DEFAULT_PARENT)}"

    def member(self, cgroup_parent: str, member_id: str) -> str:
        """The path of a container's cgroup, below its pod's. Raises InvalidArgument."""
        return pod_path(cgroup_parent, member_id)

    def fragments_path(self, default_parent: str) -> str:
        """The path of the fragments' own cgroup."""
        return pod_path(default_parent, _FRAGMENTS)

    def check(self, resources: Resources) -> None:
        """Refuse resources that this node cannot apply, before anything is created.

        Raises InvalidArgument naming field and value, FailedPrecondition naming the missing controller.
        """
        check_ranges(resources)
        for setting in self._settings(resources, fresh=True):
            if not setting.optional and self._tree_of(setting.controller) is None:
                raise missing_controller(setting)
        if resources.cpuset_cpus or resources.cpuset_mems or resources.hugepage_limits or resources.unified:
            check_host(resources, *self._processors_and_memory())

    def limits(self, resources: Resources) -> list[str]:
        """What `create` writes for them, as "memory.max 1048576" for each file. Raises InvalidArgument."""
        return [f"{setting.file} {setting.value}" for setting in self._settings(resources, fresh=True)]

    def create(self, path: str, resources: Resources, devices: Sequence[DeviceRule] | None) -> None:
        """Create the cgroup with its limits, and missing parents. On failure nothing is left.

        `devices`: the allowed ones; None leaves it to the parent (privileged). Raises InvalidArgument (a
        value that the kernel refuses), AlreadyExists, FailedPrecondition (a controller is missing).
        """
        name = relative(path)
        settings = self._settings(resources, fresh=True)
        made: list[tuple[Tree, str]] = []
        try:
            self._prepare(name, settings, made)
            write_values(self._tree_of, name, settings)
            if devices is not None:
                self._restrict_devices(name, devices)
        except FileExistsError as error:
            _unmake(made)
            raise AlreadyExists(f"cgroup {path}: already exists") from error
        except OSError as error:
            _unmake(made)
            raise kernel_error(f"cgroup {path}: make", error.errno or 0) from error
        except BaseException:
            _unmake(made)
            raise

    async def create_async(
        self, path: str, resources: Resources, devices: Sequence[DeviceRule] | None
    ) -> None:
        """`create`, for a driver that has to ask a service manager to do it."""
        self.create(path, resources, devices)

    async def keep(self, path: str) -> None:
        """Create the cgroup if it does not exist; it stays until it is removed, even if empty."""
        if not self.exists(path):
            await self.create_async(path, Resources(), None)

    def update(self, path: str, resources: Resources) -> None:
        """Change the limits that are set (not 0, not empty): all, or after a failure none.

        A memory limit without a swap limit means no swap, as in `create`: pass the container's merged values.
        A memory limit below the current use is refused after the kernel has reclaimed what it can, which may
        take long. Raises NotFound, InvalidArgument, FailedPrecondition.
        """
        name = relative(path)
        self._require(name)
        settings = self._settings(resources, fresh=False)
        self._make_room(name, settings)
        replace_values(self._tree_of, name, settings)

    async def update_async(self, path: str, resources: Resources) -> None:
        await asyncio.to_thread(self.update, path, resources)

    def remove(self, path: str, timeout_s: float = REMOVE_TIMEOUT_S) -> None:
        """Remove the cgroup and those below it, from every hierarchy. A missing path is no error.

        Waits for processes that are exiting; raises FailedPrecondition naming those that remain.
        """
        name = relative(path)
        deadline = deadline_after(timeout_s)
        while not self._try_remove(name):
            if not wait_until_empty(self.trees, name, deadline):
                left = sorted(set().union(*(tree.pids(name) for tree in self.trees)))
                raise FailedPrecondition(f"cgroup {path}: remove: processes {left} are still in it")

    async def remove_async(self, path: str, timeout_s: float = REMOVE_TIMEOUT_S) -> None:
        """`remove`; runs inline in the usual case that the cgroup is empty."""
        if not self._try_remove(relative(path)):
            await asyncio.to_thread(self.remove, path, timeout_s)

    async def kill_async(self, path: str, timeout_s: float = KILL_TIMEOUT_S) -> None:
        await asyncio.to_thread(self.kill, path, timeout_s)

    def remove_exec_child(self, path: str, exec_id: str, timeout_s: float = REMOVE_TIMEOUT_S) -> None:
        """Idempotent. Raises FailedPrecondition while it contains a process."""
        name = f"{relative(path)}/{exec_name(exec_id)}"
        tree, deadline = self._exec_tree, deadline_after(timeout_s)
        while not self._rmdir(tree, name):
            if not wait_until_empty((tree,), name, deadline):
                left = sorted(tree.pids(name))
                raise FailedPrecondition(f"cgroup /{name}: remove: processes {left} are still in it")

    async def end_exec_child(self, path: str, exec_id: str) -> None:
        """Kill all processes left by an exec, and remove its cgroup. Idempotent. Raises DeadlineExceeded."""
        await self.kill_async(f"/{relative(path)}/{exec_name(exec_id)}")
        await asyncio.to_thread(self.remove_exec_child, path, exec_id)

    def leave_exec_child(self, path: str, exec_id: str) -> None:
        """Remove an exec's cgroup if it is empty; else it is removed with the container's."""
        self._rmdir(self._exec_tree, f"{relative(path)}/{exec_name(exec_id)}")

    def view(self, path: str) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
        """What to mount below /sys/fs/cgroup for a process in `path` without a cgroup namespace.

        Returns (folder name, path on the host) of each v1 hierarchy, and (link, folder name) of controllers
        that are mounted together; both are empty on v2.
        """
        return (), ()

    def pids(self, path: str) -> set[int]:
        """Processes in `path` and below; empty if it does not exist."""
        return self._process_tree.pids(relative(path))

    def exists(self, path: str) -> bool:
        return self._process_tree.has(relative(path), "cgroup.procs")

    def close(self) -> None:
        for tree in self.trees:
            tree.close()

    @abstractmethod
    def _make_room(self, name: str, settings: Sequence[Setting]) -> None:
        """Before limits change: raise FailedPrecondition for one that would make the kernel kill."""

    @property
    def freezer(self) -> Freezer:
        """Raises FailedPrecondition on a node without a freezer."""
        for tree in (self._tree_of("freezer"), self._exec_tree):
            if tree is not None and ("freezer" in tree.controllers or self.version != "v1"):
                return Freezer(tree)
        raise FailedPrecondition("cgroups: this node has no freezer")

    def _processors_and_memory(self) -> tuple[str, str]:
        """CPUs and memory nodes available to cgroups, as the kernel lists them; "" if unknown."""
        tree = self._tree_of("cpuset")
        if tree is None:
            return "", ""
        suffixes = ("effective_cpus", "effective_mems"), ("cpus.effective", "mems.effective")
        for cpus, nodes in suffixes:
            if tree.has(".", f"cpuset.{cpus}"):
                return tree.read(".", f"cpuset.{cpus}").strip(), tree.read(".", f"cpuset.{nodes}").strip()
        return "", ""

    def _require(self, name: str) -> None:
        if not self._process_tree.has(name, "cgroup.procs"):
            raise NotFound(f"cgroup /{name}: there is none")

    def _try_remove(self, name: str) -> bool:
        return all([self._rmdir(tree, name) for tree in self.trees])

    def _rmdir(self, tree: Tree, name: str) -> bool:
        try:
            return tree.rmdir_with_children(name)
        except OSError as error:
            raise kernel_error(f"cgroup /{name}: remove from {tree.root}", error.errno or 0) from error

    def _make_exec_child(self, name: str, child: str) -> None:
        try:
            self._exec_tree.mkdir(child)
        except FileNotFoundError as error:
            raise NotFound(f"cgroup /{name}: there is none") from error
        except FileExistsError as error:
            raise AlreadyExists(f"cgroup /{child}: already exists") from error
        except OSError as error:
            raise kernel_error(f"cgroup /{child}: make", error.errno or 0) from error


def open_together(name: str, openers: Sequence[Callable[[], int]]) -> list[int]:
    """Open all or, on failure, none. Raises NotFound naming the cgroup."""
    fds: list[int] = []
    try:
        for opener in openers:
            fds.append(opener())
    except OSError as error:
        for fd in fds:
            os.close(fd)
        if isinstance(error, FileNotFoundError):
            raise NotFound(f"cgroup /{name}: there is none ({error.filename})") from error
        raise kernel_error(f"cgroup /{name}: open {error.filename}", error.errno or 0) from error
    return fds


def _unmake(made: list[tuple[Tree, str]]) -> None:
    for tree, name in reversed(made):
        # A parent that has other children by now stays.
        with contextlib.suppress(OSError):
            tree.rmdir(name)

"""A folder that behaves like a cgroup2 mount as far as our calls can tell."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from phantom_cri.cgroups.tree import Tree

_ALWAYS = {
    "cgroup.controllers": "",
    "cgroup.subtree_control": "",
    "cgroup.procs": "",
    "cgroup.kill": "",
    "cgroup.events": "populated 0\nfrozen 0\n",
    "cpu.stat": "usage_usec 5\nuser_usec 3\nsystem_usec 2\n",
}
_FILES = {
    "cpu": {"cpu.weight": "100", "cpu.max": "max 100000"},
    "cpuset": {"cpuset.cpus": "", "cpuset.mems": ""},
    "memory": {
        "memory.max": "max",
        "memory.swap.max": "max",
        "memory.high": "max",
        "memory.current": "5000",
        "memory.stat": "anon 1000\ninactive_file 1500\n",
        "memory.events": "low 0\noom 0\noom_kill 0\n",
    },
    "pids": {"pids.max": "max", "pids.current": "3"},
}


class Cgroup2Folder(Tree):
    """Files appear with a cgroup, values are kept.

    `refused`: (file, value) pairs that the "kernel" answers with EINVAL. `writes`: all that came, in order.
    """

    def __init__(self, root: Path, controllers: frozenset[str]) -> None:
        root.mkdir()
        self.refused: set[tuple[str, str]] = set()
        self.writes: list[tuple[str, str, str]] = []
        super().__init__(str(root), controllers)
        self._fill(".", controllers)

    def mkdir(self, path: str) -> None:
        super().mkdir(path)
        parent = os.path.dirname(path) or "."
        self._fill(path, frozenset(self.read(parent, "cgroup.subtree_control").split()))

    def rmdir(self, path: str) -> None:
        place = Path(self.root, path)
        if self.children(path) or place.joinpath("cgroup.procs").read_text().strip():
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        for file in place.iterdir():
            file.unlink()
        super().rmdir(path)

    def write(self, path: str, file: str, value: str) -> None:
        self.writes.append((path, file, value))
        if (file, value) in self.refused:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), f"{path}/{file}")
        if file == "cgroup.subtree_control":
            return self._enable(path, value)
        if not self.has(path, file):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{path}/{file}")
        Path(self.root, path, file).write_text(value)

    def _enable(self, path: str, value: str) -> None:
        """As cgroup-v2.rst: from the parent's only, and not where processes are (but in the root)."""
        if path != "." and self.read(path, "cgroup.procs").strip():
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        asked = {word.removeprefix("+") for word in value.split()}
        if not asked <= set(self.read(path, "cgroup.controllers").split()):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        control = Path(self.root, path, "cgroup.subtree_control")
        enabled = asked | set(control.read_text().split())
        control.write_text(" ".join(sorted(enabled)))
        for child in self.children(path):
            self._fill(child.removeprefix("./"), frozenset(enabled))

    def _fill(self, path: str, controllers: frozenset[str]) -> None:
        place = Path(self.root, path)
        files = dict(_ALWAYS)
        for controller in controllers:
            files |= _FILES.get(controller, {})
        for name, content in files.items():
            if not place.joinpath(name).exists():
                place.joinpath(name).write_text(content)
        place.joinpath("cgroup.controllers").write_text(" ".join(sorted(controllers)))

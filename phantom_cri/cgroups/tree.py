"""One mounted cgroup hierarchy, addressed relative to an open directory.

Every path here is relative to the hierarchy's root and already checked (`paths.relative`).
Plain system calls with `dir_fd`, no Path objects: every container's start and end uses them.
"""

from __future__ import annotations

import errno
import os

from phantom_cri.cgroups.paths import parents

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CLOEXEC
_LARGEST_FILE = 1 << 16  # cgroup files are one page at a time; cgroup.procs may need more reads


class Tree:
    """A hierarchy's root, held open for the life of the process, and the calls below it. Raises OSError."""

    def __init__(self, root: str, controllers: frozenset[str] = frozenset()) -> None:
        self.root = root
        self.controllers = controllers
        self.fd = os.open(root, _DIRECTORY)

    def close(self) -> None:
        os.close(self.fd)

    def mkdir(self, path: str) -> None:
        os.mkdir(path, 0o755, dir_fd=self.fd)

    def rmdir(self, path: str) -> None:
        os.rmdir(path, dir_fd=self.fd)

    def make(self, path: str, made: list[tuple[Tree, str]]) -> None:
        """mkdir with missing parents; each one created is added to `made` at once.

        An existing parent is no error, an existing `path` raises FileExistsError.
        """
        try:
            self.mkdir(path)
        except FileNotFoundError:
            for parent in parents(path):
                try:
                    self.mkdir(parent)
                except FileExistsError:
                    continue
                made.append((self, parent))
                self.on_new_parent(parent)
            self.mkdir(path)
        made.append((self, path))

    def on_new_parent(self, path: str) -> None:
        """A hook for hierarchies whose new cgroups need to be initialized (v1 cpuset)."""

    def open_directory(self, path: str) -> int:
        return os.open(path, _DIRECTORY, dir_fd=self.fd)

    def open_for_reading(self, path: str, file: str) -> int:
        return os.open(f"{path}/{file}", _READ, dir_fd=self.fd)

    def open_for_writing(self, path: str, file: str) -> int:
        return os.open(f"{path}/{file}", _WRITE, dir_fd=self.fd)

    def write(self, path: str, file: str, value: str) -> None:
        self.write_each(path, file, (value.encode(),))

    def write_each(self, path: str, file: str, values: tuple[bytes, ...]) -> None:
        """Write several values to one file, one write(2) each: the kernel accepts one command per write."""
        fd = os.open(f"{path}/{file}", _WRITE, dir_fd=self.fd)
        try:
            for value in values:
                os.write(fd, value)
        finally:
            os.close(fd)

    def read(self, path: str, file: str) -> str:
        fd = os.open(f"{path}/{file}", _READ, dir_fd=self.fd)
        try:
            content = os.read(fd, _LARGEST_FILE)
            while content and (more := os.read(fd, _LARGEST_FILE)):
                content += more
        finally:
            os.close(fd)
        return content.decode()

    def has(self, path: str, file: str) -> bool:
        return os.access(f"{path}/{file}", os.F_OK, dir_fd=self.fd)

    def children(self, path: str) -> list[str]:
        """The cgroups directly below `path`; none if it is gone."""
        try:
            fd = self.open_directory(path)
        except FileNotFoundError:
            return []
        try:
            with os.scandir(fd) as entries:
                return [f"{path}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False)]
        finally:
            os.close(fd)

    def descendants(self, path: str) -> list[str]:
        """All cgroups below `path`, deepest first."""
        found: list[str] = []
        waiting = self.children(path)
        while waiting:
            child = waiting.pop()
            found.append(child)
            waiting.extend(self.children(child))
        return found[::-1]

    def pids(self, path: str) -> set[int]:
        """Processes in `path` and below; none if it is gone. 0 (of an outer pid namespace) is skipped."""
        pids: set[int] = set()
        for place in (path, *self.descendants(path)):
            try:
                pids.update(map(int, self.read(place, "cgroup.procs").split()))
            except OSError as error:
                # ENODEV: removed between open and read (kernfs). EOPNOTSUPP: threaded, its leaders are above.
                if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
                    raise
        pids.discard(0)
        return pids

    def rmdir_with_children(self, path: str) -> bool:
        """rmdir it and the cgroups made below it by containers and execs. False: a process is left."""
        try:
            self.rmdir(path)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            return self._rmdir_deepest_first(path)
        return True

    def _rmdir_deepest_first(self, path: str) -> bool:
        for place in (*self.descendants(path), path):
            try:
                self.rmdir(place)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                    raise
                return False
        return True

"""A real ctr on one containerd."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.child import Child
from harness.tools import tool
from harness.waiting import wait_until


class CtrError(Exception):
    """ctr exited with `status`; the text is what it wrote to stderr."""

    def __init__(self, arguments: tuple[str, ...], done: subprocess.CompletedProcess[str]):
        super().__init__(f"ctr {' '.join(arguments)}: exit {done.returncode}: {done.stderr.strip()}")
        self.status, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr


class Ctr:
    """Runs ctr in `namespace` of the containerd at `socket`."""

    def __init__(self, socket: Path, namespace: str, runtime: str = ""):
        """`runtime`: of the tasks that `start` and `run` make."""
        self._command = [str(tool("ctr")), "--address", str(socket), "--namespace", namespace]
        self._runtime = ["--runtime", runtime] if runtime else []

    def run(self, *arguments: str, timeout: float = 60) -> str:
        """stdout of `ctr ARGUMENTS`; raises CtrError for another status than 0."""
        done = subprocess.run(
            [*self._command, *arguments], capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode:
            raise CtrError(arguments, done)
        return done.stdout

    def converse(self, *arguments: str, given: str) -> str:
        """stdout of `ctr ARGUMENTS`, which gets `given` once it has written a line: an earlier end of input
        is lost in ctr.
        """
        with subprocess.Popen(
            [*self._command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as command:
            assert command.stdout is not None
            first = command.stdout.readline()
            return first + command.communicate(given, timeout=60)[0]

    def pull(self, reference: str) -> None:
        self.run("images", "pull", "--plain-http", reference)

    def start(self, image: str, name: str, *command: str, flags: tuple[str, ...] = ()) -> None:
        """A task that goes on when ctr has ended."""
        self.run("run", "--detach", *self._runtime, *flags, image, name, *command)

    def run_task(self, image: str, name: str, *command: str, flags: tuple[str, ...] = ()) -> str:
        """A task from its start to its end, and its output. Raises CtrError with its exit code."""
        return self.run("run", "--rm", *self._runtime, *flags, image, name, *command)

    def exec(self, name: str, exec_id: str, *command: str) -> str:
        return self.run("tasks", "exec", "--exec-id", exec_id, name, *command)

    def on_terminal(self, *arguments: str, typed: bytes) -> bytes:
        """What `ctr ARGUMENTS` shows on a terminal until it ends; `typed` once it shows something."""
        master, slave = pty.openpty()
        os.set_inheritable(slave, True)
        command = subprocess.Popen(
            [*self._command, *arguments], stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        shown = b""
        try:
            while piece := _read(master):
                if not shown:
                    os.write(master, typed)
                shown += piece
        finally:
            os.close(master)
            command.wait(30)
        return shown

    def states(self) -> dict[str, tuple[int, str]]:
        """pid and status of each task."""
        lines = self.run("tasks", "list").splitlines()[1:]
        return {name: (int(pid), status) for name, pid, status in map(str.split, lines)}

    def remove(self, name: str) -> None:
        """Whatever is there of a task and its container."""
        for arguments in (("tasks", "rm", "--force", name), ("containers", "rm", name)):
            subprocess.run([*self._command, *arguments], capture_output=True, check=False)

    @contextmanager
    def events(self, log: Path) -> Iterator[Events]:
        """What happens from now on."""
        child = Child([*self._command, "events"], log)
        try:
            wait_until(lambda: self._shows_up(log), "ctr events to listen", interval=0.05)
            yield Events(log)
        finally:
            child.stop()

    def _shows_up(self, log: Path) -> bool:
        self.run("namespaces", "label", self._command[-1], f"shown={time.monotonic_ns()}")
        return "/namespaces/update" in log.read_text()


class Events:
    """What `ctr events` has written so far."""

    def __init__(self, log: Path):
        self._log = log

    def of_tasks(self) -> list[tuple[str, dict[str, Any]]]:
        """Topic and content of each event of a task, in order."""
        found = re.findall(r" (/tasks/\S+) (\{.*\})$", self._log.read_text(), re.MULTILINE)
        return [(topic, json.loads(text)) for topic, text in found]


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 16)
    except OSError:  # EIO: nobody has the other end open any more
        return b""

"""A process started by a test: its output is written to a file, and it ends with its owner."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.waiting import wait_until


class Child:
    """A running program in its own session, with stdout and stderr appended to `log`."""

    def __init__(
        self, command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
    ):
        self.command = [str(word) for word in command]
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def running(self) -> bool:
        return self.process.poll() is None

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log_text().splitlines()[-lines:])

    def wait_for_file(self, path: Path, timeout: float = 20.0) -> None:
        """Waits until `path` exists; raises RuntimeError with the log's end if the program ends first."""
        self.wait_for(path.exists, str(path), timeout)

    def wait_for(self, check: Callable[[], object], what: str, timeout: float = 20.0) -> None:
        """Waits until `check()` is true; RuntimeError with the log's end if the program ends first."""
        try:
            wait_until(lambda: check() or not self.running(), what, timeout)
        except TimeoutError as error:
            raise RuntimeError(f"{error}\n{self.log_tail()}") from error
        if not self.running():
            raise RuntimeError(
                f"{self.command[0]} ended with {self.process.returncode} before {what}\n{self.log_tail()}"
            )

    def stop(self, grace: float = 20.0) -> int:
        """SIGTERM, then SIGKILL after `grace` seconds; returns the exit status (negative: a signal)."""
        if self.running():
            self.process.send_signal(signal.SIGTERM)
            try:
                return self.process.wait(grace)
            except subprocess.TimeoutExpired:
                return self.kill()
        return self.process.returncode

    def kill(self) -> int:
        """SIGKILL only to the program, as in a crash; its children keep running."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        return self.process.wait()

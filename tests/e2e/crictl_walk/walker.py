"""Walks the steps on one runtime and keeps what each printed."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from harness.tools import tool
from harness.waiting import wait_until
from tests.e2e.crictl_walk.inputs import write_files
from tests.e2e.crictl_walk.steps import Step

LONGEST_STEP_SECONDS = 60


@dataclass(frozen=True)
class Output:
    """What a step came to."""

    status: int
    stdout: str
    stderr: str


@dataclass
class Walker:
    """crictl on `endpoint`; `folder` takes its files, `cgroup` its pods.

    `known` maps names to what they stand for on this runtime.
    """

    endpoint: str
    folder: Path
    cgroup: str
    known: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        logs = self.folder / "logs"
        logs.mkdir(parents=True)
        self.config = self.folder / "crictl.yaml"
        self.config.write_text(f"runtime-endpoint: {self.endpoint}\nimage-endpoint: {self.endpoint}\n")
        self.known |= {"folder": str(self.folder), "cgroup": self.cgroup}
        self.known |= write_files(self.folder, logs, self.cgroup)
        self._background: subprocess.Popen[str] | None = None

    def walk(self, steps: Iterable[Step]) -> dict[str, Output]:
        """The output of each step, by the step's text; a step that comes again has its number behind it."""
        outputs: dict[str, Output] = {}
        for step in steps:
            begin = time.monotonic()
            again = sum(name.partition(" #")[0] == str(step) for name in outputs)
            name = f"{step} #{again + 1}" if again else str(step)
            outputs[name] = self._take(step)
            self.seconds[name] = time.monotonic() - begin
        return outputs

    def _take(self, step: Step) -> Output:
        if step.how == "start":
            return self._start(step)
        found = self._wait_for_background(self._named(step.until)) if step.until else None
        if step.how == "end":
            return self._end()
        if step.words[0] == "GET":
            if found is None:
                return Output(0, "", "nowhere to get it from")
            with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}{step.words[1]}", timeout=10) as page:
                return Output(page.status, page.read().decode(), "")
        done = subprocess.run(
            self._command(step),
            input=step.stdin,
            capture_output=True,
            text=True,
            timeout=LONGEST_STEP_SECONDS,
            check=False,
        )
        if step.keep:
            lines = done.stdout.split()
            self.known[step.keep] = lines[-1] if lines else f"no-{step.keep}"
        return Output(done.returncode, done.stdout, done.stderr)

    def _command(self, step: Step) -> list[str]:
        return [str(tool("crictl")), f"--config={self.config}", *map(self._named, step.words)]

    def _named(self, word: str) -> str:
        return re.sub(r"<(\w+)>", lambda match: self.known[match[1]], word)

    def _start(self, step: Step) -> Output:
        with self._stream("stdout").open("w") as stdout, self._stream("stderr").open("w") as stderr:
            self._background = subprocess.Popen(
                self._command(step), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, text=True
            )
        if step.words[0] == "events":
            self._wait_until_told()
        return Output(0, "", "")

    def _wait_until_told(self) -> None:
        """crictl does not say when it listens: pods come and go until it tells of one."""

        def told() -> bool:
            pod = self._take(Step(("runp", "<probe_pod_file>"))).stdout.strip()
            self._take(Step(("rmp", "--force", pod)))
            return self._stream("stdout").stat().st_size > 0

        wait_until(told, "the first event", timeout=20)

    def _stream(self, name: str) -> Path:
        return self.folder / f"background.{name}"

    def _wait_for_background(self, pattern: str) -> re.Match[str] | None:
        """Until its stdout has `pattern`; None if it does not get to that."""
        assert self._background is not None
        process = self._background

        def found() -> re.Match[str] | None:
            return re.search(pattern, self._stream("stdout").read_text())

        with contextlib.suppress(TimeoutError):
            wait_until(lambda: found() or process.poll() is not None, pattern, timeout=5)
        return found()

    def _end(self) -> Output:
        assert self._background is not None
        if self._background.poll() is None:
            self._background.send_signal(signal.SIGINT)
        status = self._background.wait(timeout=20)
        return Output(status, self._stream("stdout").read_text(), self._stream("stderr").read_text())

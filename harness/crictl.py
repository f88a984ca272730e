"""Runs a real crictl on one endpoint."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.tools import tool


class CrictlError(Exception):
    """crictl exited with `status`; the text is its stderr."""

    def __init__(self, arguments: tuple[str, ...], status: int, stderr: str):
        super().__init__(f"crictl {' '.join(arguments)}: exit {status}: {stderr.strip()}")
        self.status = status
        self.stderr = stderr


class Crictl:
    """Runs crictl against `endpoint` (`unix://…`); without the machine's configuration file."""

    def __init__(self, endpoint: str, folder: Path, timeout_seconds: int = 30):
        """`folder`: for the JSON files of pod and container configs."""
        self.folder = folder
        self._command = [
            str(tool("crictl")),
            f"--config={os.devnull}",
            f"--runtime-endpoint={endpoint}",
            f"--image-endpoint={endpoint}",
            f"--timeout={timeout_seconds}s",
        ]

    def run(self, *arguments: str) -> str:
        """stdout of `crictl ARGUMENTS`; raises CrictlError if it fails."""
        done = subprocess.run([*self._command, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CrictlError(arguments, done.returncode, done.stderr)
        return done.stdout

    def json(self, verb: str, *arguments: str) -> Any:
        """The parsed output of a verb that supports `-o json`."""
        return json.loads(self.run(verb, "-o", "json", *arguments))

    def run_pod(self, config: Mapping[str, Any], handler: str = "") -> str:
        """RunPodSandbox; returns the pod's id. `config` is a PodSandboxConfig in crictl's snake_case JSON."""
        runtime = [f"--runtime={handler}"] if handler else []
        return self.run("runp", *runtime, self._file("pod", config)).strip()

    def create(self, pod: str, container: Mapping[str, Any], config: Mapping[str, Any]) -> str:
        """CreateContainer in `pod`, which was run with `config`; returns the container's id."""
        return self.run("create", pod, self._file("container", container), self._file("pod", config)).strip()

    def _file(self, kind: str, content: Mapping[str, Any]) -> str:
        path = self.folder / f"crictl-{kind}.json"
        path.write_text(json.dumps(content))
        return str(path)

"""A real kubectl on one cluster."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from harness.tools import tool


class KubectlError(Exception):
    """kubectl exited with `status`; the text is what it wrote to stderr."""

    def __init__(self, arguments: tuple[str, ...], status: int, stdout: str, stderr: str):
        super().__init__(f"kubectl {' '.join(arguments)}: exit {status}: {stderr.strip()}")
        self.status = status
        self.stdout = stdout
        self.stderr = stderr


class Kubectl:
    """Runs kubectl with `kubeconfig`; no other configuration of the machine is read."""

    def __init__(self, kubeconfig: Path):
        self.kubeconfig = kubeconfig
        self.environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "KUBERC": "off"}

    def command(self, *arguments: str) -> list[str]:
        """For tests that talk to the process while it runs."""
        return [str(tool("kubectl")), *arguments]

    def run(self, *arguments: str, stdin: str = "", timeout: float = 120) -> str:
        """stdout of `kubectl ARGUMENTS`. Raises KubectlError; TimeoutExpired after `timeout` seconds."""
        done = subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            timeout=timeout,
        )
        if done.returncode:
            raise KubectlError(arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A kubectl that runs on, with pipes for its three streams."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.command(*arguments), stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=self.environment
        )

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "-o", "json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        """`kubectl apply` of all of them, in one call."""
        listing = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.run("apply", "-f", "-", stdin=json.dumps(listing))

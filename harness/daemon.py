"""phantom-cri on private paths: its own sockets, folders, bridge, addresses and cgroup."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from harness.cgroups import remove_cgroups
from harness.child import Child
from harness.host import Snapshot, kill_below, unmount_below
from harness.tools import ROOT
from harness.waiting import wait_until

DRIVER = os.environ.get("PHANTOM_TEST_CGROUP_DRIVER", "cgroupfs")
"""The cgroup driver of the tests' daemons: every test runs with either."""

PROGRAM = ROOT / ".venv" / "bin" / "phantom-cri"


def free_port() -> int:
    """A TCP port on loopback that is currently free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Daemon:
    """A daemon with all its files below `folder`, a short path: a socket's path has at most 107 bytes.

    `config` is merged over the private paths, key by key at the top level, e.g. `{"pools": [...]}`.
    `prefix` goes before the command, e.g. to enter other namespaces.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ):
        self.folder = folder
        self.prefix = prefix
        self.socket = folder / "cri.sock"
        self.root = folder / "root"
        self.state = folder / "state"
        self.registries = folder / "certs.d"
        self.environment = dict(environment or {})
        self.metrics_port = free_port()
        unique = os.urandom(3)
        self.bridge = f"pf{unique.hex()}"
        name = f"phantom-{unique.hex()}"
        self.cgroup = f"/phantom.slice/{name}.slice" if DRIVER == "systemd" else f"/{name}"
        self.config: dict[str, Any] = {
            "listen": f"unix://{self.socket}",
            "root": str(self.root),
            "state": str(self.state),
            "registry_config_path": str(self.registries),
            "metrics_address": f"127.0.0.1:{self.metrics_port}",
            "cgroup": {"driver": DRIVER, "default_parent": f"/{name}"},
            "network": {"bridge": self.bridge, "subnets": _subnets(unique)},
            **(config or {}),
        }
        self.child: Child | None = None

    @property
    def endpoint(self) -> str:
        return f"unix://{self.socket}"

    @property
    def log(self) -> Path:
        return self.folder / "daemon.log"

    def launch(self) -> Child:
        """Starts the program without waiting for it."""
        self.registries.mkdir(parents=True, exist_ok=True)
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(self.config))
        self.child = Child([*self.prefix, PROGRAM, "--config", path], self.log, self.environment)
        return self.child

    def start(self) -> Daemon:
        """Starts the daemon and waits until its socket accepts connections."""
        self.launch().wait_for(self.accepts, f"{self.socket} to accept", timeout=30)
        return self

    def accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    @property
    def running(self) -> Child:
        if self.child is None:
            raise RuntimeError("the daemon was never started")
        return self.child

    def stop(self) -> int:
        """SIGTERM; returns the exit status. Pods keep running."""
        return self.running.stop()

    def kill(self) -> None:
        """SIGKILL. Pods keep running."""
        self.running.kill()

    def restart(self) -> Daemon:
        if self.running.running():
            self.stop()
        return self.start()

    def metrics(self) -> str:
        """The Prometheus page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as page:
            return str(page.read().decode())

    def wait_pools_full(self) -> Daemon:
        """Waits for full pools, as the number of fragments changes until then."""

        def full() -> bool:
            page = self.metrics()
            wanted = ((pool["name"], pool.get("size", 8)) for pool in self.config.get("pools", ()))
            return all(
                f'phantom_pool_fragments{{pool="{name}",state="warm"}} {float(size)}' in page
                for name, size in wanted
            )

        wait_until(full, "full pools", timeout=30, interval=0.1)
        return self

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def snapshot(self) -> Snapshot:
        """What this daemon has on the host now; waits for files in its trash to be deleted."""
        with contextlib.suppress(TimeoutError):
            wait_until(self._trash_is_empty, "an empty trash", timeout=5)
        return Snapshot.take(self.folder, self.running.pid, self.cgroup, self.bridge)

    def _trash_is_empty(self) -> bool:
        return not any(path.iterdir()) if (path := self.root / "trash").exists() else True

    def wait_for_no_traces(self, before: Snapshot, timeout: float = 30.0) -> None:
        """Waits until everything is as `before`; raises AssertionError with what is left and what is missing.

        Waits, since pools are refilled and namespaces removed in the background.
        """
        try:
            wait_until(lambda: not self.snapshot().differences(before), "no traces", timeout, interval=0.2)
        except TimeoutError as error:
            raise AssertionError(f"left behind:\n{self.snapshot().differences(before)}") from error

    def destroy(self) -> None:
        """Stops the daemon and removes everything it made, including running pods: for cleanup only."""
        if self.child is not None:
            self.child.stop(grace=5)
        kill_below(self.state)
        unmount_below(self.folder)
        for command in (["ip", "link", "delete"], ["nft", "delete", "table", "inet"]):
            name = self.bridge if command[0] == "ip" else f"phantom_{self.bridge}"
            subprocess.run([*command, name], stderr=subprocess.DEVNULL, check=False)
        if DRIVER == "systemd":
            subprocess.run(["systemctl", "stop", Path(self.cgroup).name], check=False)
        remove_cgroups(self.cgroup)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(f"---- the end of {self.log}\n{self.running.log_tail()}")
        self.destroy()


def _subnets(unique: bytes) -> list[str]:
    """Ranges that concurrent tests' daemons are unlikely to share."""
    return [
        f"10.{128 + unique[0] % 64}.{unique[1] & 0xF0}.0/20",
        f"fd70:{unique.hex()[:4]}:{unique.hex()[2:]}::/64",
    ]

"""`make run`, as a person sees it, in namespaces of its own, so that all it leaves can be seen."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.child import Child
from harness.tools import ROOT
from harness.waiting import wait_until

DEMO = [sys.executable, "-m", "harness.demo"]


class OwnHost:
    """A network and a mount namespace that nobody else uses."""

    def __init__(self, folder: Path):
        self.holder = Child(["unshare", "--net", "--mount", "sleep", "1000"], folder / "holder.log")
        wait_until(lambda: Path(f"/proc/{self.holder.pid}/comm").read_text() == "sleep\n", "own namespaces")
        self.run("ip", "link", "set", "lo", "up")

    def command(self, *words: str) -> list[str]:
        return ["nsenter", f"--target={self.holder.pid}", "--net", "--mount", f"--wd={ROOT}", *words]

    def run(self, *words: str) -> str:
        """What `words` print to stdout and stderr; raises AssertionError with it when they fail."""
        done = subprocess.run(
            self.command(*words),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def traces(self) -> set[str]:
        """Links, nftables tables and the demo's mounts and folders."""
        links = {line.split()[0] for line in self.run("ip", "-br", "link").splitlines()}
        tables = set(self.run("nft", "list", "tables").splitlines())
        mounts = {line.split()[4] for line in self.run("cat", "/proc/self/mountinfo").splitlines()}
        return links | tables | {mount for mount in mounts if mount.startswith("/tmp/phantom-")}


@pytest.fixture
def own_host(tmp_path: Path) -> Iterator[OwnHost]:
    host = OwnHost(tmp_path)
    try:
        yield host
    finally:
        host.holder.kill()


@pytest.mark.root
def test_the_demo_runs_a_warm_pod_and_removes_everything(own_host: OwnHost) -> None:
    before = own_host.traces()
    output = own_host.run(*DEMO)
    assert re.search(r"^hello from hello, pid 1, 10\.\d+\.\d+\.\d+/20$", output, re.MULTILINE), output
    assert "start: warm from pool default" in output
    assert re.search(r"prepare kernel \d+\.\d+ ms", output)
    assert own_host.traces() == before


@pytest.mark.root
def test_a_demo_that_is_killed_removes_everything_too(own_host: OwnHost, tmp_path: Path) -> None:
    before = own_host.traces()
    output = tmp_path / "output"
    with output.open("wb") as stream:
        demo = subprocess.Popen(own_host.command(*DEMO), stdout=stream, stderr=subprocess.STDOUT)
    wait_until(lambda: "== pull" in output.read_text(), "the demo to get to the pull", timeout=60)
    demo.send_signal(signal.SIGTERM)
    assert demo.wait(60) == 143, output.read_text()
    assert own_host.traces() == before

"""Where a cluster lives: a network and a mount namespace that end with their holder."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from harness.cgroups import hierarchies, remove_cgroups
from harness.child import Child

PRIVATE = ("var", "run")


class Namespaces:
    """A network namespace, a mount namespace and a cgroup for all that belongs to one node.

    The node has a veth pair to this machine, so kubectl works from here; it has no route to anywhere else.
    /var and /run are overlays: what kubelet and containerd keep there stays in `folder`/var and `folder`/run.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        unique = os.urandom(3)
        self.link = f"pk{unique.hex()}"
        network = f"10.{224 + unique[0] % 32}.{unique[1]}"
        first = unique[2] & 0xFC
        self.gateway, self.address = f"{network}.{first + 1}", f"{network}.{first + 2}"
        self.cgroup = f"/phantom-node-{unique.hex()}"
        self._holder: Child | None = None

    @property
    def enter(self) -> tuple[str, ...]:
        """What goes before a command that is to run inside."""
        assert self._holder is not None
        return ("nsenter", f"--target={self._holder.pid}", "--net", "--mount", "--")

    def start(self) -> Namespaces:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["unshare", "--net", "--mount", "--propagation=slave", "sleep", "infinity"]
        self._holder = Child(command, self.folder / "holder.log")
        self._holder.wait_for(self._made, "the namespaces")
        self._connect()
        self._mount()
        for hierarchy in hierarchies():
            self._make_cgroup(hierarchy)
        return self

    def run(self, *command: str | Path) -> None:
        """Runs a command inside; raises CalledProcessError."""
        subprocess.run([*self.enter, *command], check=True, stdin=subprocess.DEVNULL)

    def stop(self) -> None:
        """Ends all that runs in the cgroup, then the namespaces."""
        remove_cgroups(self.cgroup)
        if self._holder is not None:
            self._holder.kill()
        # The kernel takes the pair away with the namespace, but a moment later.
        subprocess.run(["ip", "link", "delete", self.link], stderr=subprocess.DEVNULL, check=False)

    def _made(self) -> bool:
        """Whether the holder has unshared; it becomes `sleep` after that."""
        assert self._holder is not None
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self._holder.pid}/comm").read_text().strip() == "sleep"
        return False

    def _connect(self) -> None:
        assert self._holder is not None
        pid = str(self._holder.pid)
        for command in (
            f"ip link add {self.link} type veth peer name node0 netns {pid}",
            f"ip address add {self.gateway}/30 dev {self.link}",
            f"ip link set {self.link} up",
        ):
            subprocess.run(command.split(), check=True)
        for command in (
            "ip link set lo up",
            f"ip address add {self.address}/30 dev node0",
            "ip link set node0 up",
            f"ip route add default via {self.gateway}",
        ):
            self.run(*command.split())

    def _mount(self) -> None:
        """Mounts of pods propagate between kubelet, runtime and containers, but not to this machine."""
        self.run("mount", "--make-rshared", "/")
        for name in PRIVATE:
            upper, work = self.folder / name, self.folder / f"{name}-work"
            upper.mkdir()
            work.mkdir()
            options = f"lowerdir=/{name},upperdir={upper},workdir={work}"
            self.run("mount", "-t", "overlay", "overlay", "-o", options, f"/{name}")

    def _make_cgroup(self, hierarchy: Path) -> None:
        group = hierarchy / self.cgroup.strip("/")
        group.mkdir()
        # A new cpuset of cgroup v1 has no CPU and no memory node, so nothing could run in it.
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (group / name).exists() and (hierarchy / name).exists():
                (group / name).write_text((hierarchy / name).read_text())

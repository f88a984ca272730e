"""A daemon on a CNI network of its own: real plugins, and the files that tell what they have left behind."""

from __future__ import annotations

import json
import shlex
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.daemon import Daemon
from tests.e2e.lifecycle.client import Cri

PLUGINS = "/usr/lib/cni"
SHARED_CHAINS = ("POSTROUTING", "CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-SETMARK")


class CniNode:
    """All is named after the daemon's bridge: the network, its link, its iptables chains, its addresses."""

    def __init__(self, folder: Path, *, pool: int = 2, prewire: str = "auto", timeout: str = "20s") -> None:
        self.conf_dir, self.bin_dir = folder / "net.d", folder / "bin"
        self.conf_dir.mkdir(parents=True)
        self.bin_dir.mkdir()
        cni = {
            "conf_dir": str(self.conf_dir),
            "bin_dirs": [str(self.bin_dir), PLUGINS],
            "prewire": prewire,
            "timeout": timeout,
        }
        network = {"driver": "cni", "cni": cni}
        config = {"pools": [{"name": "default", "size": pool}], "network": network}
        self.daemon = Daemon(folder, config)
        # the built-in network of a daemon has these ranges for itself alone; so have we
        self.subnets: list[str] = Daemon(folder).config["network"]["subnets"]
        self.name = self.daemon.bridge
        self.ipam = folder / "ipam"

    def cri(self) -> Cri:
        return Cri(self.daemon.endpoint)

    # --- configurations ---------------------------------------------------

    def bridge(self, **fields: Any) -> dict[str, Any]:
        ranges = [[{"subnet": subnet}] for subnet in self.subnets]
        routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
        return {
            "type": "bridge",
            "bridge": self.name,
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "dataDir": str(self.ipam), "ranges": ranges, "routes": routes},
            **fields,
        }

    def chain(self) -> list[dict[str, Any]]:
        """What a cluster's node has as a rule."""
        return [
            self.bridge(),
            {"type": "portmap", "capabilities": {"portMappings": True}},
            {"type": "bandwidth", "capabilities": {"bandwidth": True}},
        ]

    def configure(
        self, plugins: Sequence[Mapping[str, Any]], file: str = "10-net.conflist", **fields: Any
    ) -> Path:
        """Writes a configuration as an installer does: under another name, then renamed."""
        network = {"cniVersion": "1.0.0", "name": self.name, "plugins": plugins, **fields}
        path = self.conf_dir / file
        half = path.with_suffix(".half")
        half.write_text(json.dumps(network))
        half.rename(path)
        return path

    # --- what is there ----------------------------------------------------

    def addresses(self) -> set[str]:
        """Addresses that host-local holds."""
        folder = self.ipam / self.name
        names = [path.name for path in folder.iterdir()] if folder.exists() else []
        return {name for name in names if name != "lock" and not name.startswith("last_reserved_ip")}

    def attachments(self) -> list[Path]:
        """The driver's own records."""
        folder = self.daemon.root / "cni"
        return list(folder.iterdir()) if folder.exists() else []

    def links(self) -> list[dict[str, Any]]:
        """Ports of the bridge."""
        done = subprocess.run(
            ["ip", "-j", "link", "show", "master", self.name], capture_output=True, text=True, check=False
        )
        found: list[dict[str, Any]] = json.loads(done.stdout or "[]") if done.returncode == 0 else []
        return [link for link in found if link]

    def rules(self) -> list[str]:
        """iptables' rules that carry the network's name in their comments."""
        words = []
        for program in ("iptables", "ip6tables"):
            saved = subprocess.run(
                [f"{program}-save", "-t", "nat"], capture_output=True, text=True, check=True
            )
            words += [line for line in saved.stdout.splitlines() if self._is_ours(line)]
        return words

    def destroy(self) -> None:
        """End and remove whatever is left, rules too that plugins had no namespace any more to remove by."""
        self.daemon.destroy()
        for program in ("iptables", "ip6tables"):
            saved = subprocess.run(
                [f"{program}-save", "-t", "nat"], capture_output=True, text=True, check=True
            )
            ours = [shlex.split(line) for line in saved.stdout.splitlines() if self._is_ours(line)]
            for rule in ours:
                subprocess.run([program, "-w", "-t", "nat", "-D", *rule[1:]], check=False)
            for chain in {rule[1] for rule in ours if rule[1] not in SHARED_CHAINS}:
                subprocess.run([program, "-w", "-t", "nat", "-X", chain], check=False)

    def _is_ours(self, line: str) -> bool:
        return f'"{self.name}\\"' in line

    def traces(self) -> dict[str, int]:
        return {
            "addresses": len(self.addresses()),
            "attachments": len(self.attachments()),
            "links": len(self.links()),
            "rules": len(self.rules()),
        }


def fetch(address: str, port: int) -> str:
    """What an HTTP server answers. Raises OSError."""
    host = f"[{address}]" if ":" in address else address
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{host}:{port}/", timeout=3) as answer:
        return str(answer.read().decode())

"""A pod network configuration for Debian's CNI plugins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CNI_PLUGINS = Path("/usr/lib/cni")


def write_bridge_network(folder: Path, bridge: str, subnet: str, host_ports: bool = False) -> Path:
    """Writes `folder`/net.d/10-bridge.conflist, stores addresses in `folder`/ipam; returns the net.d folder.

    The bridge plugin without masquerading, as it is faster; with `host_ports` followed by portmap.
    """
    plugins: list[dict[str, Any]] = [
        {
            "type": "bridge",
            "bridge": bridge,
            "isGateway": True,
            "ipMasq": False,
            "ipam": {
                "type": "host-local",
                "dataDir": str(folder / "ipam"),
                "ranges": [[{"subnet": subnet}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
    ]
    if host_ports:
        plugins.append({"type": "portmap", "capabilities": {"portMappings": True}})
    conf_dir = folder / "net.d"
    conf_dir.mkdir(parents=True, exist_ok=True)
    network = {"cniVersion": "1.0.0", "name": bridge, "plugins": plugins}
    (conf_dir / "10-bridge.conflist").write_text(json.dumps(network))
    return conf_dir

"""A pod network of Debian's CNI plugins, as a node's administrator would write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CNI_PLUGINS = Path("/usr/lib/cni")


def write_bridge_network(folder: Path, bridge: str, subnet: str, host_ports: bool = False) -> Path:
    """Writes `folder`/net.d/10-bridge.conflist, keeps addresses in `folder`/ipam; answers the net.d folder.

    The bridge plugin in its cheapest form, without masquerading; with `host_ports` portmap after it.
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

"""The spec that containerd writes for `ctr run` and for CRI, as far as tests need it."""

from __future__ import annotations

import json
from typing import Any

from shim.oci_spec import Wanted, read_bundle

CAPABILITIES = ["CAP_CHOWN", "CAP_KILL"]


def usual() -> dict[str, Any]:
    return {
        "ociVersion": "1.3.0",
        "process": {
            "user": {"uid": 0, "gid": 0, "additionalGids": [0, 7]},
            "args": ["sleep", "100"],
            "env": ["PATH=/bin", "A=1", "A=2"],
            "cwd": "/",
            "capabilities": {name: CAPABILITIES for name in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs"},
        "mounts": [
            _mount("/proc", "proc", "nosuid", "noexec", "nodev"),
            _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount(
                *("/dev/pts", "devpts", "nosuid", "noexec"),
                *("newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
            ),
            _mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
            _mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
            _mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
            _mount("/run", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        ],
        "linux": {
            "resources": {
                "devices": [
                    {"allow": False, "access": "rwm"},
                    {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "rw"},
                ],
                "cpu": {"shares": 1024},
                "memory": {"limit": 1 << 20},
            },
            "cgroupsPath": "/test/one",
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
    }


def _mount(place: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": place, "type": kind, "source": kind, "options": list(options)}


def read(config: dict[str, Any], *, terminal: bool = False) -> Wanted:
    return read_bundle(json.dumps(config).encode(), "one", "/bundle", (), terminal=terminal)

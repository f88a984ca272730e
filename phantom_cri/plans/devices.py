"""The ops that fill a container's /dev."""

from __future__ import annotations

import stat
from functools import lru_cache

from phantom_cri.codec import replace
from phantom_cri.plans.ops import Mkdir, Mknod, Symlink
from phantom_cri.plans.plan import Block
from phantom_cri.plans.spec import HostDevice


def _standard(name: str, major: int, minor: int) -> HostDevice:
    return HostDevice(f"/dev/{name}", stat.S_IFCHR | 0o666, major, minor)


STANDARD = (
    _standard("null", 1, 3),
    _standard("zero", 1, 5),
    _standard("full", 1, 7),
    _standard("random", 1, 8),
    _standard("urandom", 1, 9),
    _standard("tty", 5, 0),
)
"""In every container (OCI runtime spec, "Default Devices"; numbers: admin-guide/devices.txt)."""

_LINKS = (
    Symlink("/proc/self/fd", "/dev/fd"),
    Symlink("/proc/self/fd/0", "/dev/stdin"),
    Symlink("/proc/self/fd/1", "/dev/stdout"),
    Symlink("/proc/self/fd/2", "/dev/stderr"),
    Symlink("/proc/kcore", "/dev/core"),
    Symlink("pts/ptmx", "/dev/ptmx"),
)


@lru_cache(maxsize=64)
def dev_block(devices: tuple[HostDevice, ...], root: tuple[int, int] = (0, 0)) -> Block:
    """The ops that fill a new /dev: standard nodes and links, and `devices`, whose paths win.

    root: the host ids of the container's root. `devices` keep their owners on the host: one that only the
    host's root may open must not be accessible to the root of a user namespace.
    """
    paths = {device.path for device in devices} | {link.path for link in _LINKS}
    uid, gid = root
    nodes = [replace(device, uid=uid, gid=gid) for device in STANDARD if device.path not in paths]
    asked = [device for device in devices if all(device.path != link.path for link in _LINKS)]
    made: list[Mkdir | Mknod | Symlink] = []
    folders = {"/", "/dev"}
    for node in (*nodes, *asked):
        made += _missing_folders(node.path, folders, root)
        made.append(Mknod(node.path, node.mode, node.major, node.minor, node.uid, node.gid))
    return Block(*made, *_LINKS)


def _missing_folders(path: str, known: set[str], root: tuple[int, int]) -> list[Mkdir]:
    folder = path.rpartition("/")[0] or "/"
    if folder in known:
        return []
    above = _missing_folders(folder, known, root)
    known.add(folder)
    return [*above, Mkdir(folder, 0o755, *root)]

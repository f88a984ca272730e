"""The initramfs: modules and busybox enough to put the host's files below an overlay and start systemd.

Format: Documentation/driver-api/early-userspace/buffer-format.rst ("newc").
"""

from __future__ import annotations

import lzma
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.vm.kernels import Kernel

MODULES = ("virtio_pci", "virtio_blk", "virtiofs", "overlay")

_HERE = Path(__file__).parent
_BUSYBOX = Path("/usr/bin/busybox")
_FOLDERS = ("bin", "modules", "units", "proc", "sys", "dev", "lower", "upper", "root")


def initramfs(kernel: Kernel) -> bytes:
    modules = kernel.with_dependencies(*MODULES)
    names = [f"modules/{index:02}-{module.name.removesuffix('.xz')}" for index, module in enumerate(modules)]
    files = {
        "init": (_HERE / "init").read_bytes(),
        "bin/busybox": _BUSYBOX.read_bytes(),
        "agent.py": (_HERE / "agent.py").read_bytes(),
        **{f"units/{unit.name}": unit.read_bytes() for unit in (_HERE / "units").iterdir()},
        **{name: _module(module) for name, module in zip(names, modules, strict=True)},
        **{str(path)[1:]: path.read_bytes() for path in _libraries(_BUSYBOX)},
    }
    folders = {
        str(parent): None for name in (*files, *(f"{f}/x" for f in _FOLDERS)) for parent in Path(name).parents
    }
    folders.pop(".", None)
    entries = [_entry(name, stat.S_IFDIR | 0o755, b"") for name in sorted(folders)]
    entries += [_entry(name, stat.S_IFREG | 0o755, content) for name, content in files.items()]
    return b"".join([*entries, _entry("TRAILER!!!", 0, b"")])


def _module(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def _libraries(binary: Path) -> Iterator[Path]:
    """The shared libraries and the loader of a binary; none of a static one."""
    said = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout
    yield from (Path(word) for word in said.split() if word.startswith("/"))


def _entry(name: str, mode: int, content: bytes) -> bytes:
    inode, links = 0, 1
    fields = (inode, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(content)


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 4)

"""OCI images built from Debian's dynamic busybox, its libraries, and files of tests.

Applets are hard links: a mask on /bin/ls would follow a symbolic link and hide /bin/busybox itself.
Debian's busybox-static cannot be used: its shell runs applets without looking at /bin.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import zstandard

BUSYBOX = Path("/usr/bin/busybox")
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
Compression = Literal["gzip", "zstd", "none"]

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
GROUP = """\
root:x:0:
daemon:x:1:
www-data:x:33:
nobody:x:65534:
"""
# The pause container of other runtimes. As process 1 it has to install handlers for signals that end it.
PAUSE_SOURCE = """\
#include <signal.h>
#include <unistd.h>
static void leave(int signal_number) { _exit(signal_number == SIGTERM || signal_number == SIGINT ? 0 : 1); }
int main(void)
{
    signal(SIGTERM, leave);
    signal(SIGINT, leave);
    signal(SIGCHLD, SIG_IGN);
    for (;;)
        pause();
}
"""


@dataclass(frozen=True)
class ImageConfig:
    """The image's config; durations, ids and paths as in the OCI image spec."""

    entrypoint: Sequence[str] = ()
    cmd: Sequence[str] = ("/bin/sh",)
    env: Sequence[str] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    user: str = ""
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    volumes: Sequence[str] = ()
    stop_signal: str = ""

    def to_json(self) -> dict[str, Any]:
        wanted = {
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.cmd),
            "Env": list(self.env),
            "User": self.user,
            "WorkingDir": self.working_dir,
            "Labels": dict(self.labels),
            "Volumes": {path: {} for path in self.volumes},
            "StopSignal": self.stop_signal,
        }
        return {key: value for key, value in wanted.items() if value}


class LayerBuilder:
    """Builds an uncompressed layer, member by member; the same calls give the same bytes."""

    def __init__(self, format_: int = tarfile.PAX_FORMAT) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w", format=format_)

    def member(self, name: str, kind: bytes, mode: int, content: bytes = b"", **more: Any) -> LayerBuilder:
        """Adds one member without checks, so that hostile layers can be built too."""
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.size = kind, mode, len(content)
        for key, value in more.items():
            setattr(info, key, value)
        self._tar.addfile(info, io.BytesIO(content))
        return self

    def directory(self, name: str, mode: int = 0o755, **more: Any) -> LayerBuilder:
        return self.member(name, tarfile.DIRTYPE, mode, **more)

    def file(self, name: str, content: bytes | str, mode: int = 0o644, **more: Any) -> LayerBuilder:
        content = content.encode() if isinstance(content, str) else content
        return self.member(name, tarfile.REGTYPE, mode, content, **more)

    def hard_link(self, name: str, target: str) -> LayerBuilder:
        return self.member(name, tarfile.LNKTYPE, 0o755, linkname=target)

    def symlink(self, name: str, target: str) -> LayerBuilder:
        return self.member(name, tarfile.SYMTYPE, 0o777, linkname=target)

    def finish(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()


def busybox_layer(binaries: Iterable[Path] = ()) -> bytes:
    """A root with busybox, its applets in /bin, and `binaries` of this machine with their libraries."""
    layer = LayerBuilder()
    for path in (
        "bin",
        "dev",
        "etc",
        "home",
        "lib",
        "lib64",
        "proc",
        "root",
        "run",
        "sys",
        "usr",
        "usr/bin",
        "var",
    ):
        layer.directory(path)
    layer.directory("tmp", mode=0o1777)
    layer.file("etc/passwd", PASSWD).file("etc/group", GROUP)
    layer.file("bin/busybox", BUSYBOX.read_bytes(), 0o755)
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in sorted(set(applets) - {"busybox"}):
        layer.hard_link(f"bin/{applet}", "bin/busybox")
    binaries = list(binaries)
    for library in sorted({one for binary in (BUSYBOX, *binaries) for one in shared_libraries(binary)}):
        layer.file(library.relative_to("/").as_posix(), library.read_bytes(), 0o755)
    for binary in binaries:
        layer.file(f"usr/bin/{binary.name}", binary.read_bytes(), 0o755)
    return layer.finish()


def program_layer(name: str, source: str, mode: int = 0o755) -> bytes:
    """A layer with only a static program at `/name`, compiled from C source."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / name
        command = ["gcc", "-Os", "-static", "-s", "-x", "c", "-", "-o", str(program)]
        subprocess.run(command, input=source, text=True, check=True)
        return LayerBuilder().file(name, program.read_bytes(), mode).finish()


def shared_libraries(binary: Path) -> list[Path]:
    """The loader and libraries of `binary`, as printed by ldd."""
    listing = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
    return [Path(found) for found in re.findall(r"(/\S+) \(0x", listing)]


def write_layout(
    folder: Path,
    layers: Sequence[bytes],
    config: ImageConfig | None = None,
    compression: Compression = "gzip",
    tag: str = "latest",
) -> str:
    """Writes an OCI image layout of one image to `folder`; returns the manifest's digest.

    `layers` are uncompressed tar archives, lowest first. With no layers the layout is still valid.
    """
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    image = {
        "architecture": ARCHITECTURE,
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "config": (config or ImageConfig()).to_json(),
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
    }
    suffix = {"gzip": "+gzip", "zstd": "+zstd", "none": ""}[compression]
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _blob(blobs, json.dumps(image).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [
            _blob(blobs, _compress(layer, compression), f"application/vnd.oci.image.layer.v1.tar{suffix}")
            for layer in layers
        ],
    }
    entry = _blob(blobs, json.dumps(manifest).encode(), manifest["mediaType"])
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    return str(entry["digest"])


def build_image(
    folder: Path,
    config: ImageConfig | None = None,
    files: Mapping[str, bytes | str] | None = None,
    binaries: Iterable[Path] = (),
    compression: Compression = "gzip",
) -> str:
    """A busybox image, with `files` (path → content) in another layer; returns the manifest's digest."""
    layers = [busybox_layer(binaries)]
    if files:
        layer = LayerBuilder()
        for name, content in files.items():
            layer.file(name.lstrip("/"), content)
        layers.append(layer.finish())
    return write_layout(folder, layers, config, compression)


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _blob(blobs: Path, content: bytes, media_type: Any) -> dict[str, Any]:
    digest = digest_of(content)
    (blobs / digest.removeprefix("sha256:")).write_bytes(content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _compress(layer: bytes, compression: Compression) -> bytes:
    if compression == "gzip":
        return gzip.compress(layer, compresslevel=6, mtime=0)
    return zstandard.compress(layer) if compression == "zstd" else layer

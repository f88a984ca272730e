"""Debian's kernels by release: fetched with apt, unpacked beside each other, never installed."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "phantom-fragment" / "vm"

RELEASES = ("bookworm", "bookworm-backports")
"""6.1, and the newest that Debian builds for the same distribution."""

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclass(frozen=True)
class Kernel:
    version: str
    image: Path
    modules: Path  # what belongs at /lib/modules

    def with_dependencies(self, *names: str) -> list[Path]:
        """The modules' files in an order in which they can be loaded."""
        files: dict[Path, None] = {}
        for name in names:
            command = [
                "modprobe",
                "-d",
                str(self.modules.parents[1]),
                "-S",
                self.version,
                "--show-depends",
                name,
            ]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            files |= {Path(line.split()[1]): None for line in said.splitlines() if line.startswith("insmod")}
        return list(files)


def kernel(release: str) -> Kernel:
    """The release's current kernel, from the cache or from the mirror. Raises CalledProcessError."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = CACHE / f"kernel-{release}"
        if not folder.exists():
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            _fetch(release, part)
            part.rename(folder)
    version = next((folder / "root/lib/modules").iterdir()).name
    return Kernel(version, folder / f"root/boot/vmlinuz-{version}", folder / "root/lib/modules")


def apt_state(release: str, apt: Path) -> list[str]:
    """Options for apt's programs. Its state is their own: the system's sources and lists stay as they are."""
    for name in ("lists/partial", "archives/partial", "parts"):
        (apt / name).mkdir(parents=True)
    source = f"deb [signed-by={_KEYRING}] http://deb.debian.org/debian {release} main\n"
    (apt / "sources.list").write_text(source)
    settings = {
        "Dir::Etc::SourceList": apt / "sources.list",
        "Dir::Etc::SourceParts": apt / "parts",
        "Dir::State::Lists": apt / "lists",
        "Dir::Cache": apt,
        "APT::Sandbox::User": "root",
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    subprocess.run(["apt-get", "-qq", *options, "update"], check=True)
    return options


def _fetch(release: str, folder: Path) -> None:
    apt = folder / "apt"
    options = apt_state(release, apt)
    said = subprocess.run(
        ["apt-cache", *options, "depends", f"linux-image-amd64/{release}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    package = re.search(r"Depends: (linux-image-\S+)", said)
    assert package is not None, f"{release} has no kernel: {said}"
    subprocess.run(["apt-get", "-qq", *options, "download", package[1]], check=True, cwd=folder)
    deb = next(folder.glob("*.deb"))
    subprocess.run(["dpkg-deb", "-x", deb, folder / "root"], check=True)
    root = folder / "root"
    if not (root / "lib").exists():  # merged /usr, from trixie on
        (root / "lib").symlink_to("usr/lib")
    version = next((root / "lib/modules").iterdir()).name
    subprocess.run(["depmod", "-b", root, version], check=True)
    shutil.rmtree(apt)
    deb.unlink()

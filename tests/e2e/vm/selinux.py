"""Debian's SELinux policy with types for containers beside its own: compiled here, loaded in a machine."""

from __future__ import annotations

import bz2
import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

from tests.e2e.vm.kernels import CACHE, apt_state

PARAMETERS = "security=selinux selinux=1 enforcing=0"

_RELEASE = "bookworm"
_PACKAGES = ("selinux-policy-default", "policycoreutils", "secilc")
_CONTAINERS = Path(__file__).parent / "container.cil"
_VERSION = 33
"""Of the binary policy: the newest that both Linux 6.1 and Debian 12's libsepol know."""


def policy() -> Path:
    """A folder with `policy` and `etc/selinux`, from the cache or the mirror. Raises CalledProcessError."""
    CACHE.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(_CONTAINERS.read_bytes()).hexdigest()[:12]
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = CACHE / f"selinux-{_RELEASE}-{digest}"
        if not folder.exists():
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            _compile(part)
            part.rename(folder)
    return folder


def loading(policy: Path, *, enforce: bool) -> str:
    """A shell command for the machine. Nobody but containers has rules to obey: see container.cil."""
    # A policy is loaded by one single write (security/selinux/selinuxfs.c).
    load = f"open('/sys/fs/selinux/load', 'wb', buffering=0).write(open('{policy}/policy', 'rb').read())"
    return (
        f"set -e; cp -r {policy}/etc/selinux /etc/; echo SELINUXTYPE=default > /etc/selinux/config; "
        f'python3 -c "{load}"; echo {int(enforce)} > /sys/fs/selinux/enforce; '
        "tr -d '\\0' < /proc/self/attr/current"
    )


def _compile(folder: Path) -> None:
    root, modules = folder / "root", folder / "modules"
    for made in (root, modules):
        made.mkdir(parents=True)
    options = apt_state(_RELEASE, folder / "apt")
    subprocess.run(["apt-get", "-qq", *options, "download", *_PACKAGES], check=True, cwd=folder)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
        package.unlink()
    for module in (root / "usr/share/selinux/default").glob("*.pp.bz2"):
        plain = folder / "module.pp"
        plain.write_bytes(bz2.decompress(module.read_bytes()))
        target = modules / module.name.replace(".pp.bz2", ".cil")
        subprocess.run([root / "usr/libexec/selinux/hll/pp", plain, target], check=True)
    options = ["-N", "-M", "true", "-c", str(_VERSION), "-o", f"{folder}/policy", "-f", f"{folder}/contexts"]
    sources = [*sorted(modules.iterdir()), _CONTAINERS]
    subprocess.run([root / "usr/bin/secilc", *options, *sources], check=True)
    (root / "etc").rename(folder / "etc")
    for used in (root, modules, folder / "apt"):
        shutil.rmtree(used)

"""Compiles the C programs: the cffi module `_native`, the static executables `fragment` and shim's launcher.

`python phantom_cri/native/build.py` builds them in place; setup.py does the same for wheels.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from cffi import FFI

NATIVE = Path(__file__).resolve().parent
SHIM = NATIVE.parent.parent / "shim"
LAUNCHER = "containerd-shim-phantom-v2"
"""As containerd calls the shim of runtime type io.containerd.phantom.v2."""

FRAGMENT_SOURCES = (
    "attach.c",
    "cgroup.c",
    "connection.c",
    "console.c",
    "exit_record.c",
    "fragment.c",
    "fragment_root.c",
    "keep.c",
    "launch.c",
    "log.c",
    "loop.c",
    "message.c",
    "ops_credentials.c",
    "ops_gather.c",
    "ops_hook.c",
    "ops_identity.c",
    "ops_label.c",
    "ops_root.c",
    "ops_user.c",
    "overlay.c",
    "path.c",
    "plan.c",
    "process.c",
    "process_end.c",
    "process_start.c",
    "request.c",
    "shutdown.c",
    "text.c",
)

WARNINGS = ("-std=gnu17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror")
HARDENING = ("-fstack-protector-strong", "-D_FORTIFY_SOURCE=2")
# Each page that a fragment writes costs memory: a fixed address needs no relocations, and without RELRO the
# few words of data share pages. Only the daemon, as root, could exploit that.
SMALL = ("-Os", "-fno-pie", "-ffunction-sections", "-fdata-sections")
# Sorted by alignment, so that the big unused tables are not between the pages that are written.
LINK = (
    *("-static", "-no-pie", "-Wl,--gc-sections", "-Wl,--sort-section=alignment"),
    *("-Wl,-z,norelro", "-Wl,-z,noexecstack", "-s"),
)

ffibuilder = FFI()
ffibuilder.cdef(
    """
    int ph_spawn(int binary_fd, const char *title, uint64_t clone_flags, int listen_fd, int state_fd,
                 int cgroup_fd, int stderr_fd, int *pidfd);
    int ph_raise_file_limit(void);
    int ph_bpf(int command, void *attributes, unsigned size);
    long syscall(long number, ...);
    int mount(const char *from, const char *to, const char *kind, unsigned long flags, const void *data);
    int syncfs(int fd);
    int unshare(int flags);
    """
)
ffibuilder.set_source(
    "phantom_cri.native._native",
    """
    #include "spawn.h"
    #include <sched.h>
    #include <sys/mount.h>
    #include <unistd.h>
    """,
    sources=[os.path.relpath(NATIVE / "spawn.c")],
    include_dirs=[os.path.relpath(NATIVE)],
    extra_compile_args=["-std=gnu17", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-fstack-protector-strong"],
)


def build_fragment(target: Path, compiler: str | None = None, native: Path = NATIVE) -> None:
    """Builds the executable `target` from the sources in `native`."""
    _link(target, [native / name for name in FRAGMENT_SOURCES], compiler)


def build_launcher(target: Path, source: Path = SHIM / "launcher.c") -> None:
    """Builds the shim command that containerd runs."""
    _link(target, [source])


def _link(target: Path, sources: list[Path], compiler: str | None = None) -> None:
    """Builds the executable `target` from `sources`, atomically.

    `compiler`: default $CC or cc. Raises CalledProcessError; the compiler's messages are on stderr.
    """
    command = [compiler or os.environ.get("CC", "cc"), *WARNINGS, *HARDENING, *SMALL, *LINK]
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        program = Path(scratch) / target.name
        subprocess.run([*command, "-o", str(program), *map(str, sources)], check=True)
        program.rename(target)


def build_in_place() -> None:
    """Builds each in the folder where it is looked for."""
    root = NATIVE.parent.parent
    os.chdir(root)
    ffibuilder.compile(tmpdir=str(root))
    build_fragment(NATIVE / "fragment")
    build_launcher(SHIM / LAUNCHER)


if __name__ == "__main__":
    build_in_place()

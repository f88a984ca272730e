"""Daemons and fragments as other releases have them: made from this one's sources, or an earlier commit's."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.daemon import Daemon
from harness.tools import ROOT
from phantom_cri.api.cri.v1 import api_pb2 as pb
from phantom_cri.native.build import NATIVE, build_fragment
from tests.conftest import refuse
from tests.e2e.lifecycle.client import Container, Cri, Pod

PACKAGE = NATIVE.parent

Release = dict[str, str]
"""The environment of its daemon."""

LATER_FIELDS = {
    "protocol.h": {
        r"(    struct ph_exit exit;\n)(};)": r"\1    uint64_t later[4];\n\2",
        r"(    uint32_t phase;  /\* enum ph_phase \*/\n)": r"\1    uint32_t later[3];\n",
        r"(    /\* op_count ops follow)": r"    uint64_t later[2];\n\1",
        r"(VERSION_NEWEST) 1": r"\1 2",
    },
    "ops.def": {r"\Z": 'OP(99, LATER, ANY, NONE, ADOPT, "", "", 0)\n'},
    "ops_label.c": {
        r"\Z": "\nint op_LATER(struct launch *launch, const struct op *op)\n{\n"
        "    (void)launch, (void)op;\n    return 0;\n}\n"
    },
}
"""What a later release may do: longer structs, one more op, one more version."""


def without_op(name: str) -> Mapping[str, Mapping[str, str]]:
    """What an earlier release may lack."""
    return {"ops.def": {rf"^OP\( *\d+, {name},.*\n": ""}}


def speaking(oldest: int, newest: int) -> Mapping[str, Mapping[str, str]]:
    return {
        "protocol.h": {r"(VERSION_OLDEST) 1": rf"\1 {oldest}", r"(VERSION_NEWEST) 1": rf"\1 {newest}"},
    }


def edit(folder: Path, changes: Mapping[str, Mapping[str, str]]) -> None:
    """`changes`: file → pattern → replacement; each pattern occurs exactly once."""
    for name, replacements in changes.items():
        text = (folder / name).read_text()
        for pattern, replacement in replacements.items():
            text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
            assert count == 1, f"{name}: {pattern} occurs {count} times"
        (folder / name).write_text(text)


def build_release(
    folder: Path,
    fragment: Mapping[str, Mapping[str, str]],
    daemon: Mapping[str, Mapping[str, str]] | None = None,
) -> Release:
    """The environment of a daemon changed by `daemon`, whose fragment is changed by `fragment`."""
    package, sources = folder / "phantom_cri", folder / "native"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(NATIVE, sources, ignore=shutil.ignore_patterns("__pycache__", "*.so", "fragment"))
    edit(sources, fragment)
    build_fragment(package / "native" / "fragment", native=sources)
    edit(package, daemon or {})
    return {"PYTHONPATH": str(folder)}


def build_commit(folder: Path, commit: str) -> Release:
    """The daemon of an earlier commit with its own fragment. Needs the whole history, as in CI's clone."""
    git = ("git", "-c", "safe.directory=*", "-C", str(ROOT))  # root may read another's clone
    found = subprocess.run([*git, "cat-file", "-e", f"{commit}^{{commit}}"], capture_output=True, check=False)
    if found.returncode:
        refuse(f"commit {commit} of the history, not of a shallow clone: {found.stderr.decode().strip()}")
    archive = subprocess.run(
        [*git, "archive", commit, "phantom_cri", "api", "policies"], stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    subprocess.run([sys.executable, "phantom_cri/native/build.py"], cwd=folder, check=True)
    return {"PYTHONPATH": str(folder)}


def replace(daemon: Daemon, cri: Cri, release: Release | None = None) -> None:
    """kill -9, and the daemon of another release; None: this one."""
    daemon.kill()
    daemon.environment = dict(release or {})
    daemon.start()
    cri.wait_served()


def waiting(sign: Path, code: int) -> dict[str, Any]:
    """A container that ends with `code` once there is a file `go` in the folder."""
    return {
        "script": f"until [ -e /sign/go ]; do sleep 0.01; done; exit {code}",
        "mounts": [pb.Mount(container_path="/sign", host_path=str(sign))],
    }


def started(pod: Pod, sign: Path, code: int) -> Container:
    asked = waiting(sign, code)
    return pod.start(asked["script"], mounts=asked["mounts"])

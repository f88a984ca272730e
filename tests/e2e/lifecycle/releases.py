"""Daemons and fragments as other releases would have them: made from this one's sources."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from phantom_cri.native.build import NATIVE, build_fragment

PACKAGE = NATIVE.parent

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
) -> dict[str, str]:
    """The environment of a daemon changed by `daemon`, whose fragment is changed by `fragment`."""
    package, sources = folder / "phantom_cri", folder / "native"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(NATIVE, sources, ignore=shutil.ignore_patterns("__pycache__", "*.so", "fragment"))
    edit(sources, fragment)
    build_fragment(package / "native" / "fragment", native=sources)
    edit(package, daemon or {})
    return {"PYTHONPATH": str(folder)}

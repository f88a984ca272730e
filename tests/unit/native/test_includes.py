"""The order of the C files, read from their includes: no two need each other, and the loop needs none."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path

from phantom_cri.native.build import FRAGMENT_SOURCES, NATIVE


def included(path: Path) -> set[str]:
    """Our own headers that a file includes, and it knows from no others."""
    return set(re.findall(r'^#include "([\w.]+)"', path.read_text(), re.MULTILINE))


def needs() -> dict[str, set[str]]:
    """Unit → units whose header it includes; a header and the .c file of its name are one unit."""
    found: dict[str, set[str]] = {}
    for path in [*NATIVE.glob("*.c"), *NATIVE.glob("*.h")]:
        units = {name.partition(".")[0] for name in included(path)}
        found.setdefault(path.stem, set()).update(units - {path.stem})
    return found


def test_no_unit_needs_one_that_needs_it() -> None:
    order = list(TopologicalSorter(needs()).static_order())  # raises CycleError naming a circle
    assert order.index("loop") < order.index("connection") < order.index("process") < order.index("request")


def test_the_loop_knows_nobody() -> None:
    assert needs()["loop"] == {"kernel"}
    assert needs()["connection"] <= {"kernel", "loop", "message", "plan", "protocol"}


def test_only_main_knows_all() -> None:
    users = {unit for unit, others in needs().items() if "request" in others}
    assert users == {"fragment"}


def test_every_source_is_built() -> None:
    assert {path.name for path in NATIVE.glob("*.c")} - {"spawn.c", "_native.c"} == set(FRAGMENT_SOURCES)

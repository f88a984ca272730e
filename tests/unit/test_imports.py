"""The arrows between rooms, read from the imports themselves (docs/architecture.md, "The tree")."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "phantom_cri"
SHIM = PACKAGE.parent / "shim"
PAGE = PACKAGE.parent / "docs/architecture.md"

BASE = {"errors", "codec", "concurrency", "undo", "model", "usage", "native"}
ROOMS = {"images", "network", "policy", "pools", "cgroups", "checkpoint", "cdi"}
"""What a node is made of: none of them knows another."""

LIFECYCLE = (
    BASE
    | ROOMS
    | {"", "config", "telemetry", "streaming", "doctor", "plans", "requests", "fragments", "drivers"}
)
MAY_IMPORT: dict[str, set[str]] = {  # in order: a room stands on those above it alone
    "": set(),  # the version
    "errors": set(),
    "codec": set(),
    "concurrency": set(),
    "undo": {"concurrency", "errors"},
    "model": {"codec"},
    "usage": {"model"},
    "native": set(),
    "api": set(),
    "config": {"", "codec", "errors"},
    "telemetry": {"codec", "errors"},
    "rpc": {"api", "errors", "telemetry"},
    "bpf": {"native"},
    "doctor": {"codec", "errors", "native"},
    "plans": {"codec", "errors", "model"},
    "requests": {"codec", "errors", "model", "plans"},
    "fragments": {"codec", "concurrency", "errors", "model", "native", "plans"},
    **{room: BASE for room in sorted(ROOMS)},
    "cgroups": BASE | {"bpf"},
    "network": BASE | {"config"},
    "streaming": {"codec", "concurrency", "errors"},
    "drivers": {"codec", "errors", "model", "plans", "requests", "images"},
    "lifecycle": LIFECYCLE,
    "daemon": LIFECYCLE | {"lifecycle"},
    "cri": {"api", "codec", "errors", "model", "usage", "rpc"},
    "cli": {"", "api", "errors", "rpc", "doctor"},
}
SHIM_MAY_IMPORT = BASE | {"", "api", "cgroups", "fragments", "plans", "policy", "pools", "rpc", "telemetry"}
"""What the wire beside CRI's stands on (shim/): none of the rooms that speak of CRI's pods."""
HOME = {  # third-party package → the rooms that may import it
    "grpc": {"rpc", "api"},
    "google": {"rpc", "cri", "cli", "api"},
    "msgspec": {"codec"},
    "pyroute2": {"network"},
    "httpx": {"images"},
    "zstandard": {"images"},
    "h11": {"streaming", "cli"},
    "wsproto": {"streaming", "cli"},
    "prometheus_client": {"telemetry"},
    "opentelemetry": {"telemetry"},
    "cffi": {"native", "network", "policy"},
    "dbus_fast": {"cgroups"},
}


def modules() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))]


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def imported(path: Path) -> Iterator[tuple[str, ...]]:
    """Every import of a module as dotted parts, type-checking ones too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = tuple((node.module or "").split("."))
            if module == ("phantom_cri",):
                yield from (("phantom_cri", alias.name) for alias in node.names)
            else:
                yield module


def test_no_room_stands_on_a_later_one() -> None:
    order = list(MAY_IMPORT)
    for room, below in MAY_IMPORT.items():
        assert below <= set(order[: order.index(room)]), room


def test_every_room_has_its_place() -> None:
    assert {room_of(path) for path in modules()} - {"__main__", "__init__"} == set(MAY_IMPORT) - {"", "api"}


def test_the_page_shows_every_room_below_those_that_it_stands_on() -> None:
    tree = PAGE.read_text().partition("\nphantom_cri/ ")[2].partition("\npolicies/ ")[0]
    shown = re.findall(r"^  (\w+)(?:/|\.py) ", tree, re.MULTILINE)
    assert set(shown) == set(MAY_IMPORT) - {"", "api"} | {"__main__"}
    for room, below in MAY_IMPORT.items():
        if room in shown:
            assert below - {"", "api"} <= set(shown[: shown.index(room)]), room


@pytest.mark.parametrize("path", sorted(SHIM.glob("*.py")), ids=lambda path: path.name)
def test_the_shim_knows_neither_cri_nor_its_rooms(path: Path) -> None:
    for target in imported(path):
        if target[0] == "phantom_cri":
            assert target[1] in SHIM_MAY_IMPORT, f"{path.name} must not import {'.'.join(target)}"
        elif target[0] not in sys.stdlib_module_names:
            assert target[0] in ("shim", "google"), f"{target[0]} has no home in shim"


def test_no_room_stands_on_the_shim() -> None:
    users = {room_of(path) for path in modules() for target in imported(path) if target[0] == "shim"}
    assert users <= {"__main__"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path: Path) -> None:
    room = room_of(path)
    if room in ("__main__", "__init__"):
        return
    for target in imported(path):
        if target[0] == "phantom_cri":
            name = "" if len(target) == 1 or target[1] == "__version__" else target[1]
            assert name in MAY_IMPORT[room] | {room}, f"{room} must not import {'.'.join(target)}"
        elif target[0] not in sys.stdlib_module_names:
            assert room in HOME.get(target[0], set()), f"{target[0]} has no home in {room}"

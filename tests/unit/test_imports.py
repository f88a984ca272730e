"""The arrows between rooms, read from the imports themselves (docs/architecture.md, "The tree")."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "phantom_cri"

BASE = {"errors", "model", "usage", "codec", "concurrency", "native", "api", ""}
ROOMS = {
    "plans",
    "requests",
    "fragments",
    "images",
    "network",
    "policy",
    "pools",
    "cgroups",
    "checkpoint",
    "cdi",
}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "codec": set(),
    "concurrency": set(),
    "model": {"codec"},
    "usage": {"model"},
    "native": {"errors", "native"},
    "config": {"codec", "errors", "config", ""},
    "api": {"api"},
    "telemetry": {"errors", "codec", "api"},
    **{room: {"errors", "model", "usage", "codec", "concurrency", "native", room} for room in ROOMS},
    "cgroups": {"errors", "model", "usage", "codec", "concurrency", "native", "bpf", "cgroups"},
    "network": {"errors", "model", "usage", "codec", "concurrency", "native", "config", "network"},
    "lifecycle": {
        *BASE,
        *ROOMS,
        "requests",
        "plans",
        "fragments",
        "drivers",
        "lifecycle",
        "streaming",
        "config",
        "telemetry",
        "doctor",
    }
    - {"api"},
    "bpf": {"native", "bpf"},
    "plans": {"errors", "model", "codec", "plans", "requests"},
    "requests": {"errors", "model", "codec", "plans", "requests"},
    "drivers": {"errors", "model", "codec", "plans", "requests", "images", "drivers"},
    "fragments": {"errors", "model", "codec", "concurrency", "native", "plans", "fragments"},
    "rpc": {"errors", "rpc", "telemetry"},
    "cri": {*BASE, "cri", "rpc"},
    "streaming": {"errors", "codec", "concurrency", "streaming"},
    "cli": {*BASE, "cli", "config", "doctor", "rpc"},
    "doctor": {"errors", "codec", "doctor", "native", "cgroups", "checkpoint"},
}
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


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path: Path) -> None:
    room = room_of(path)
    if room in ("__main__", "__init__"):
        return
    for target in imported(path):
        if target[0] == "phantom_cri":
            name = "" if len(target) == 1 or target[1] == "__version__" else target[1]
            assert name in MAY_IMPORT[room], f"{room} must not import {'.'.join(target)}"
        elif target[0] not in sys.stdlib_module_names:
            assert room in HOME.get(target[0], set()), f"{target[0]} has no home in {room}"

"""Formats values for users: columns, ages, sizes, short ids."""

from __future__ import annotations

import json
from collections.abc import Sequence

SHORT_ID = 13

_AGES = (
    (365 * 86400, "year"),
    (30 * 86400, "month"),
    (7 * 86400, "week"),
    (86400, "day"),
    (3600, "hour"),
    (60, "minute"),
)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, three spaces apart, without trailing blanks."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = ("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in text)


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def short_id(text: str) -> str:
    """The first 13 characters, without the hash's name."""
    return text.removeprefix("sha256:")[:SHORT_ID]


def age(nanoseconds: float) -> str:
    """`3 minutes`, `1 hour`; less than a second is rounded up to `1 second`."""
    whole = max(1, int(nanoseconds / 1e9))
    for length, unit in _AGES:
        if whole >= length:
            return _counted(whole // length, unit)
    return _counted(whole, "second")


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"


def size(count: int) -> str:
    """Decimal units with three digits, as docker's image sizes: `7.83MB`."""
    amount, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 999.5 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    return f"{amount:.3g}{units[0]}"


def duration(nanoseconds: float) -> str:
    """`0.85 ms`, `12.3 ms`, `1.25 s`."""
    if nanoseconds >= 1e9:
        return f"{nanoseconds / 1e9:.2f} s"
    milliseconds = nanoseconds / 1e6
    return f"{milliseconds:.2f} ms" if milliseconds < 10 else f"{milliseconds:.1f} ms"

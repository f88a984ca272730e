"""Log lines on stderr, as text or JSON, with the ids of pod and container.

`about(sandbox_id=…)` adds the ids to every later line of the running task and of tasks it starts.
`extra={"container_id": …}` does so for one line. `extra={"lines": […]}` is a record's body: further lines as
text, a list in JSON.
"""

from __future__ import annotations

import logging
import sys
import time
from contextvars import ContextVar
from typing import Literal, TextIO

from phantom_cri.codec import to_json

FIELDS = ("method", "sandbox_id", "container_id")
_CONTEXT: dict[str, ContextVar[str]] = {name: ContextVar(name, default="") for name in FIELDS}


def about(*, method: str = "", sandbox_id: str = "", container_id: str = "") -> None:
    """Give the current task's log lines these fields; an empty one does not change it."""
    for name, value in (("method", method), ("sandbox_id", sandbox_id), ("container_id", container_id)):
        if value:
            _CONTEXT[name].set(value)


def configure(
    level: str = "info", style: Literal["text", "json"] = "text", stream: TextIO | None = None
) -> None:
    """Send the root logger's lines to `stream` (stderr). Raises ValueError for an unknown level."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.setLevel(level.upper())
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    """The ids of one line: its own `extra` overrides the task's."""
    found = {}
    for name, variable in _CONTEXT.items():
        if value := getattr(record, name, None) or variable.get():
            found[name] = printable(str(value))
    return found


def body_of(record: logging.LogRecord) -> list[str]:
    """The lines of a record after the first."""
    return [printable(line) for line in getattr(record, "lines", ())]


def one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


def printable(text: str) -> str:
    """`text` as valid UTF-8: surrogates of undecodable bytes become escapes like \\udc80."""
    return text.encode("utf-8", "backslashreplace").decode()


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, ids, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": printable(record.getMessage()),
            **fields_of(record),
        }
        if record.exc_info:
            line["traceback"] = printable(self.formatException(record.exc_info))
        if body := body_of(record):
            line["lines"] = body
        return to_json(line).decode()


class TextFormatter(logging.Formatter):
    """`time level logger: message key=value…`; text from callers cannot start a new line."""

    def format(self, record: logging.LogRecord) -> str:
        message = one_line(printable(record.getMessage()))
        ids = "".join(f" {name}={value}" for name, value in fields_of(record).items())
        line = f"{_utc(record.created)} {record.levelname.lower()} {record.name}: {message}{ids}"
        if record.exc_info:
            line += "\n" + printable(self.formatException(record.exc_info))
        return line + "".join(f"\n    {one_line(each)}" for each in body_of(record))


def _utc(seconds: float) -> str:
    whole = int(seconds)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int((seconds - whole) * 1e6):06d}Z"

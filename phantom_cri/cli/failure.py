"""A command's failure: a message for the user and an exit code."""

from __future__ import annotations

import re


class Failure(Exception):
    """Printed as `phantom: …`. `exit_code` 0: the command's usual one (125 for run, else 1)."""

    def __init__(self, message: str, exit_code: int = 0) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def start_exit_code(message: str) -> int:
    """127: no such command, 126: not executable, 125: anything else; from the daemon's message."""
    if not re.search(r'\bexec: "', message):
        return 125
    absent = re.search(r"executable file not found|no such file or directory", message)
    return 127 if absent else 126

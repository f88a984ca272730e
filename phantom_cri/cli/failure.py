"""The one way in which a command fails: a sentence for the user and an exit code."""

from __future__ import annotations


class Failure(Exception):
    """Printed as `phantom: …`. `exit_code` 0: the command's usual one (125 for run, else 1)."""

    def __init__(self, message: str, exit_code: int = 0) -> None:
        super().__init__(message)
        self.exit_code = exit_code

"""The `phantom` command, given input, read from and stopped while it runs."""

from __future__ import annotations

import sys

from tests.e2e.streaming.client import StreamClient


class PhantomClient(StreamClient):
    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint, "websocket")

    def command(self, verb: str, *arguments: str) -> list[str]:
        if verb == "attach" and arguments[:2] == ("-i", "-t"):
            arguments = arguments[2:]  # whether there is a terminal is the container's affair
        return [sys.executable, "-m", "phantom_cri.cli", "--host", self._endpoint, verb, *arguments]

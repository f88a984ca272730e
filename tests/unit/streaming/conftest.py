"""A server per test, which must leave no descriptor behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from phantom_cri.streaming import StreamServer
from tests.unit.streaming.sessions import Opener, open_descriptors


@pytest.fixture
async def server() -> AsyncIterator[StreamServer]:
    before = open_descriptors()
    server = StreamServer(creation_timeout_s=5)
    await server.start()
    yield server
    await server.close()
    assert open_descriptors() - before == set()


PendingStream = Callable[..., tuple[str, Opener]]


@pytest.fixture
def pending(server: StreamServer) -> PendingStream:
    """`offer("cat", stdin=True)`: the URL of an exec on this machine, and what opens it."""

    def make(
        *command: str,
        tty: bool = False,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool | None = None,
        attach: bool = False,
    ) -> tuple[str, Opener]:
        opener = Opener(*command, tty=tty)
        streams: dict[str, Any] = {
            "tty": tty,
            "stdin": stdin,
            "stdout": stdout,
            "stderr": not tty if stderr is None else stderr,
        }
        make_url = server.offer_attach if attach else server.offer_exec
        return make_url(opener, **streams), opener

    return make

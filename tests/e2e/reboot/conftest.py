"""A daemon of its own for each test, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.daemon import Daemon
from tests.e2e.conftest import DaemonMaker
from tests.e2e.lifecycle.client import Cri


@pytest.fixture
def daemon(make_daemon: DaemonMaker) -> Daemon:
    return make_daemon({"pools": [{"name": "default", "size": 2}]}).start()


@pytest.fixture
def cri(daemon: Daemon, busybox_image: str) -> Iterator[Cri]:
    client = Cri(daemon.endpoint)
    client.pull(busybox_image)
    yield client
    client.close()

"""One daemon for all tests of a file; whatever its clients do, it must not show a traceback."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.daemon import Daemon


@pytest.fixture(scope="module")
def daemon(busybox_image: str) -> Iterator[Daemon]:
    config = {"pools": [{"name": "default", "size": 2}]}
    with Daemon(Path(tempfile.mkdtemp(prefix="pf-")), config) as running:
        yield running
        assert "Traceback" not in running.log_text()

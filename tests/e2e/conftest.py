"""Real programs for the tests here: one registry for all, a daemon for each test that asks for one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.crictl import Crictl
from harness.daemon import Daemon
from harness.image import ImageConfig, build_image
from harness.registry import Registry
from harness.tools import tool

DaemonMaker = Callable[..., Daemon]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds Kubernetes' programs now, where they are needed: it takes longer than a test may."""
    wanted = any("cluster" in item.nodeid for item in session.items)
    if wanted and os.geteuid() == 0 and not session.config.option.collectonly:
        tool("kubelet")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Adds the end of each daemon's log to the report of a test that failed."""
    report: Any = yield
    if report.failed:
        for daemon in getattr(item, "daemons", ()):
            report.sections.append(
                (f"the end of {daemon.log}", "\n".join(daemon.log_text().splitlines()[-60:]))
            )
    return report


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder with a short name: sockets below pytest's own folders would have paths that are too long."""
    with tempfile.TemporaryDirectory(prefix="pf-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def registry(short_folder: Path) -> Iterator[Registry]:
    with Registry(short_folder / "registry") as running:
        yield running


@pytest.fixture(scope="session")
def busybox_image(registry: Registry, short_folder: Path) -> str:
    """The reference of an image with busybox and pgrep; without a command it runs a shell."""
    build_image(short_folder / "busybox", ImageConfig(cmd=["/bin/sh"]), binaries=[Path("/usr/bin/pgrep")])
    return registry.push(short_folder / "busybox", "busybox")


@pytest.fixture
def make_daemon(request: pytest.FixtureRequest) -> Iterator[DaemonMaker]:
    """Makes daemons that are not started yet; takes what `Daemon` takes beside the folder."""
    daemons: list[Daemon] = []
    request.node.daemons = daemons

    def make(config: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None) -> Daemon:
        daemon = Daemon(Path(tempfile.mkdtemp(prefix="pf-")), config, environment)
        daemons.append(daemon)
        return daemon

    try:
        yield make
    finally:
        for daemon in daemons:
            daemon.destroy()
            shutil.rmtree(daemon.folder, ignore_errors=True)


@pytest.fixture
def daemon(make_daemon: DaemonMaker) -> Daemon:
    """A started daemon with a small pool."""
    return make_daemon({"pools": [{"name": "default", "size": 2}]}).start()


@pytest.fixture
def crictl(daemon: Daemon) -> Crictl:
    return Crictl(daemon.endpoint, daemon.folder)

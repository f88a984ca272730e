"""A containerd with runc's shim and ours, and the daemon that ours leads to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cgroups import remove_cgroups
from harness.containerd import Choices, Containerd
from harness.crictl import Crictl
from harness.ctr import Ctr
from harness.daemon import Daemon
from harness.image import ImageConfig, build_image
from harness.registry import Registry

NAMESPACE = "pfshim"
RUNTIMES = {"runc": "io.containerd.runc.v2", "phantom": "io.containerd.phantom.v2"}


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A folder with a short name, for sockets."""
    with tempfile.TemporaryDirectory(prefix="pfs-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def image(registry: Registry, home: Path) -> str:
    build_image(home / "image", ImageConfig(cmd=["sleep", "1000"]))
    return registry.push(home / "image", "shim-busybox")


@pytest.fixture(scope="module")
def pool_size() -> int:
    """Of the shim's warm fragments."""
    return 0


@pytest.fixture(scope="module")
def phantom(home: Path, pool_size: int) -> Iterator[Daemon]:
    (home / "p").mkdir()
    config = {"pools": [{"name": "default", "size": 0}], "shim": {"pool_size": pool_size}}
    with Daemon(home / "p", config) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def containerd(home: Path, image: str, registry: Registry, phantom: Daemon) -> Iterator[Containerd]:
    choices = Choices(image, bridge="pfshim0", subnet="10.219.0.0/16", shim=phantom.folder / "shim.sock")
    made = Containerd(home / "c", choices)
    registry.mirror(made.registries, [registry.host])
    with made:
        Ctr(made.socket, NAMESPACE).pull(image)
        Crictl(made.endpoint, made.folder).run("pull", image)
        yield made
    remove_cgroups(f"/{NAMESPACE}")


@pytest.fixture
def ctr(containerd: Containerd) -> Ctr:
    """Its tasks are ours."""
    return Ctr(containerd.socket, NAMESPACE, RUNTIMES["phantom"])


@pytest.fixture
def crictl(containerd: Containerd) -> Crictl:
    """Talks with containerd, whose handler "phantom" is ours."""
    return Crictl(containerd.endpoint, containerd.folder)

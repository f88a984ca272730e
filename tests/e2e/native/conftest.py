from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.native.bed import Bed
from tests.e2e.native.raw import Fragment
from tests.e2e.native.rootfs import make_rootfs


@pytest.fixture(scope="session")
def rootfs() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pf-rootfs-"))
    yield make_rootfs(folder / "root")
    shutil.rmtree(folder)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder with a short name, for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="pf-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def bed(rootfs: Path, scratch: Path) -> Iterator[Bed]:
    # Every test has its own tree, so that what one makes in it is not there for the next.
    own = shutil.copytree(rootfs, scratch / "image", copy_function=os.link)
    bed = Bed(own, scratch)
    yield bed
    bed.close()


@pytest.fixture
def fragment(bed: Bed) -> Fragment:
    return bed.fragment()

"""One node in this process for all faults; what it leaves at its end is looked at too."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.image import ImageConfig, LayerBuilder, busybox_layer, write_layout
from harness.registry import Registry
from harness.waiting import wait_until
from tests.e2e.faults.bed import Bed
from tests.e2e.faults.feature_scenarios import describe_device
from tests.e2e.faults.injection import wired
from tests.e2e.faults.scenarios import PullImage


async def all_addresses_back(bed: Bed) -> None:
    """They rest until the links that had them are known to be gone (network/builtin.py)."""
    async with asyncio.timeout(10):
        while bed.addresses_in_use():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.fixture(scope="session")
def pulled_image(registry: Registry, short_folder: Path) -> str:
    layer = LayerBuilder().directory("data").file("data/more", "more\n").finish()
    write_layout(short_folder / "faults", [busybox_layer(), layer], ImageConfig(labels={"of": "a pull"}))
    return registry.push(short_folder / "faults", "faults")


@pytest.fixture(scope="module")
def bed(pulled_image: str) -> Iterator[Bed]:
    made = Bed(Path(tempfile.mkdtemp(prefix="pf-")))
    PullImage.reference = pulled_image
    try:
        describe_device(made.daemon.folder / "cdi")
        made.runner.run(made.start())
        with wired(made.runtime, made.loop):
            yield made
        wait_until(lambda: not made.links(), "the pods' links to go")
        made.runner.run(all_addresses_back(made))
        made.runner.run(made.stop())
        made.runner.run(asyncio.sleep(0))
    finally:
        made.runner.close()
        made.daemon.destroy()

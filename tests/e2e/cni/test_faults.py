"""Each system call on the way of a join fails once, and the caller leaves at each of its awaits.

Whatever happens, the error is one of ours, a release clears everything, and nothing of it is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from phantom_cri.config import CniConfig
from phantom_cri.errors import PhantomError
from phantom_cri.model import PortMapping, SandboxConfig, SandboxMetadata
from phantom_cri.network.cni import driver
from phantom_cri.network.cni.driver import CniNetwork
from tests.cni_plugins import Plugins
from tests.e2e.faults.injection import Cancelled, Faults, Point, _wrapped, armed, os_error, system_calls

NETNS = f"/proc/{os.getpid()}/ns/net"
POD = SandboxConfig(metadata=SandboxMetadata("web"), port_mappings=(PortMapping("tcp", 80, 8080),))
SHORTAGE = 24  # EMFILE

# A shell starts in a tenth of the time that Python takes
PLUGIN = """#!/bin/sh
echo "$CNI_COMMAND $CNI_CONTAINERID" >>{calls}
case $CNI_COMMAND in
ADD) echo '{{"ips": [{{"address": "192.0.2.7/24"}}]}}' ;;
VERSION) echo '{{"supportedVersions": ["1.0.0"]}}' ;;
esac
"""


class Bed:
    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, folder / "calls"
        plugins = Plugins(folder)
        for name in ("one", "two"):
            program = plugins.bin_dir / name
            program.write_text(PLUGIN.format(calls=self.calls))
            program.chmod(0o755)
        conf_dir = folder / "net.d"
        conf_dir.mkdir()
        chain = [{"type": "one"}, {"type": "two", "capabilities": {"portMappings": True}}]
        (conf_dir / "net.conflist").write_text(
            json.dumps({"cniVersion": "1.0.0", "name": "net", "plugins": chain})
        )
        config = CniConfig(str(conf_dir), (str(plugins.bin_dir),), str(folder / "cache"), "always", "10s")
        self.network = CniNetwork(config, folder, folder / "state")

    async def whole_way(self, sandbox_id: str) -> None:
        await self.network.attach(sandbox_id, NETNS, ahead=True)
        await self.network.join(sandbox_id, POD)

    async def clear(self, sandbox_id: str) -> None:
        await self.network.release(sandbox_id)
        assert os.listdir(self.folder / "cache") == []
        assert self.network.statistics().attachments == 0
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        asked = [line.split()[0] for line in lines if line.endswith(f" {sandbox_id}")]
        assert not asked or asked[-1] == "DEL", asked
        self.calls.unlink(missing_ok=True)


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    made = Bed(tmp_path)
    await made.network.start({})
    yield made
    await made.network.close()


@contextlib.contextmanager
def injectable() -> Iterator[None]:
    with contextlib.ExitStack() as undo:
        for owner, name, label in system_calls():
            undo.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, _wrapped(getattr(owner, name), label))
        yield


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def points_of(request: Callable[[str], Awaitable[None]]) -> list[Point]:
    with armed(Faults()) as faults:
        await request("counted")
    return faults.points


async def test_every_call_on_the_way_fails_once(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_RETRY_S", (0.01,))
    with injectable():
        points = await points_of(bed.whole_way)
        await bed.clear("counted")
        assert len(points) > 30, points
        assert any("posix_spawn" in name for name, _ in points), points
        before = open_files()
        for number, point in enumerate(points):
            with armed(Faults(point, lambda name: os_error(SHORTAGE))) as faults:
                try:
                    await bed.whole_way(f"pod{number}")
                except PhantomError as error:
                    assert "EMFILE" in str(error) or "Too many open files" in str(error), (point, error)
            assert faults.fired is not None, point
            await bed.clear(f"pod{number}")
            assert open_files() == before, point


@pytest.mark.parametrize("late", [False, True])
async def test_a_caller_that_leaves_at_any_moment(bed: Bed, late: bool) -> None:
    whole = Cancelled(bed.whole_way("counted"), 0, late=late)
    await whole
    assert whole.awaits >= 6, "VERSION twice, ADD twice, DEL, ADD"
    await bed.clear("counted")
    before = open_files()
    for number in range(1, whole.awaits + 1):
        task = asyncio.ensure_future(_left(bed.whole_way(f"pod{number}"), number, late))
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await bed.clear(f"pod{number}")
        assert open_files() == before, number


async def _left(work: Awaitable[None], number: int, late: bool) -> None:
    await Cancelled(work, number, late=late)

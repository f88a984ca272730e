"""Pulls that end early: by their callers, by registries that stall, trickle or hang up, and by the clock."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from phantom_cri.errors import RegistryUnavailable
from phantom_cri.images import Limits
from phantom_cri.model import ImageSpec
from tests.e2e.images.conftest import Start, layout, tree
from tests.e2e.images.spec_registry import SpecRegistry
from tests.e2e.images.test_pull import layers_of


def connections_to(host: str) -> list[str]:
    """Our own open ones to `host`, 127.0.0.1:PORT, whose server may be in this process as well."""
    ours = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            ours.add(os.readlink(f"/proc/self/fd/{name}"))
    port = f":{int(host.rpartition(':')[2]):04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return [" ".join(row) for row in rows if row[2].endswith(port) and f"socket:[{row[9]}]" in ours]


@asynccontextmanager
async def listening(port: int = 0) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A port at which connections are taken and never answered; what came on each, once it has ended."""
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(b"")
        number = len(heard) - 1
        try:
            while piece := await reader.read(65536):
                heard[number] += piece
            heard[number] += b"<end>"
        finally:
            writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def given_up(pull: asyncio.Future[str]) -> None:
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull


async def test_a_pull_that_is_given_up_in_the_middle_of_a_tls_handshake(start: Start) -> None:
    service = await start()
    async with listening() as (port, heard):
        pull = asyncio.ensure_future(service.pull(ImageSpec(image=f"127.0.0.1:{port}/app")))
        await until(lambda: any(heard))
        assert heard[0][0] == 0x16, "a TLS handshake, RFC 8446 5.1"
        await given_up(pull)
        await until(lambda: all(each.endswith(b"<end>") for each in heard))


async def test_a_pull_may_be_given_up_at_any_moment(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", size=3_000_000), "app")
    service = await start()
    fresh = tree(tmp_path / "root")
    turns, pulled = 1, False
    while not pulled:
        pull = asyncio.ensure_future(service.pull(ImageSpec(image=name)))
        for _ in range(turns):
            await asyncio.sleep(0)
        if not pull.done():
            await given_up(pull)
        pulled = service.list() != ()  # it may be given up when all but the tidying is done
        assert len(asyncio.all_tasks()) == 1
        turns += 1 + turns // 5
    await until(lambda: not connections_to(spec_registry.host))
    await service.remove(name)
    await until(lambda: tree(tmp_path / "root") == fresh)


async def test_whoever_shares_a_download_keeps_it(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", size=3_000_000), "app")
    other = spec_registry.add(tmp_path / "image", "other")
    stalled = layers_of(tmp_path / "image")[1]
    spec_registry.behaviour.stall = {stalled}
    service = await start()
    first = asyncio.ensure_future(service.pull(ImageSpec(image=name)))
    await until(lambda: spec_registry.blob_requests(stalled))
    second = asyncio.ensure_future(service.pull(ImageSpec(image=other)))
    await until(lambda: any("/other/" in asked.path for asked in spec_registry.asked))
    await asyncio.sleep(0.1)
    await given_up(first)
    spec_registry.behaviour.released.set()
    assert await second
    assert [tag for image in service.list() for tag in image.repo_tags] == [other]


async def test_a_registry_that_stalls_is_given_up(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", size=3_000_000), "app")
    stalled = layers_of(tmp_path / "image")[1]
    spec_registry.behaviour.stall = {stalled}
    service = await start(limits=Limits(progress_timeout_s=0.5))
    with pytest.raises(RegistryUnavailable) as refused:
        async with asyncio.timeout(10):
            await service.pull(ImageSpec(image=name))
    assert str(refused.value).endswith(
        f"layer {stalled}: nothing came for 0.5 s (images.pull_progress_timeout)"
    )
    await until(lambda: not connections_to(spec_registry.host))
    assert len(asyncio.all_tasks()) == 1
    spec_registry.behaviour.released.set()
    await service.pull(ImageSpec(image=name))
    assert spec_registry.blob_requests(stalled)[-1].headers["Range"].startswith("bytes=1"), "it goes on"


async def test_a_registry_that_takes_connections_and_says_nothing(start: Start) -> None:
    service = await start(limits=Limits(progress_timeout_s=0.5))
    async with listening() as (port, heard):
        with pytest.raises(RegistryUnavailable, match=r"nothing came for 0\.5 s"):
            async with asyncio.timeout(10):
                await service.pull(ImageSpec(image=f"127.0.0.1:{port}/app"))
        await until(lambda: all(each.endswith(b"<end>") for each in heard))


async def test_a_registry_that_trickles_is_waited_for(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", count=1, size=40_000), "app")
    spec_registry.behaviour.trickle = 0.1
    service = await start(limits=Limits(progress_timeout_s=0.3))
    began = asyncio.get_running_loop().time()
    await service.pull(ImageSpec(image=name))
    assert asyncio.get_running_loop().time() - began > 0.6


async def test_a_registry_that_hangs_up_again_and_again(
    start: Start, spec_registry: SpecRegistry, tmp_path: Path
) -> None:
    name = spec_registry.add(layout(tmp_path / "image", count=1), "app")
    (layer,) = layers_of(tmp_path / "image")
    spec_registry.behaviour.cut = {layer: [0] * 50}
    service = await start()
    with pytest.raises(RegistryUnavailable):
        async with asyncio.timeout(20):
            await service.pull(ImageSpec(image=name))
    await until(lambda: not connections_to(spec_registry.host))
    assert service.list() == ()

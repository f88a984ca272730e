"""Progress on the wire: nothing lost, nobody left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from phantom_cri.api.cri.v1 import api_pb2 as cri
from phantom_cri.api.phantom.v1 import node_pb2 as wire
from phantom_cri.api.phantom.v1.node_pb2_grpc import NodeStub
from phantom_cri.cri.node_service import LayerReport, NodeService
from phantom_cri.errors import DataLoss, InvalidArgument
from phantom_cri.model import AuthConfig, Image, ImageSpec
from tests.unit.cli.fake_daemon import IMAGE, FakeDaemon, serving


class Slow(FakeDaemon):
    """A pull that reports from a thread and then waits to be let go or cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.cancelled = asyncio.Event(), asyncio.Event()

    async def pull_with_progress(
        self, spec: ImageSpec, auth: AuthConfig | None, report: LayerReport
    ) -> Image:
        def from_a_thread() -> None:
            for done in range(1000):
                report("sha256:a", "downloading", done, 1000)
            report("sha256:b", "waiting", 0, 0)

        try:
            await asyncio.to_thread(from_a_thread)
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        report("sha256:b", "done", 5, 5)
        return IMAGE

    async def load_image(self, path: str, report: LayerReport) -> Iterable[Image]:
        raise DataLoss(f"{path}: digest does not match")


REQUEST = wire.PullRequest(image=cri.ImageSpec(image="x:1"))


async def test_refuses_what_names_nothing() -> None:
    service = NodeService(FakeDaemon())
    with pytest.raises(InvalidArgument, match=r"image\.image"):
        await anext(service.Pull(wire.PullRequest()))
    with pytest.raises(InvalidArgument, match=r"path: must be absolute, got 'a\.tar'"):
        await anext(service.LoadImage(wire.LoadImageRequest(path="a.tar")))


async def test_a_failure_comes_through() -> None:
    with pytest.raises(DataLoss, match="digest does not match"):
        await anext(NodeService(Slow()).LoadImage(wire.LoadImageRequest(path="/a.tar")))


async def test_the_last_state_of_each_layer_arrives_in_few_messages() -> None:
    daemon = Slow()
    messages = []
    async for message in NodeService(daemon).Pull(REQUEST):
        messages.append(message)
        if any(layer.digest == "sha256:b" for layer in message.layers):
            daemon.go.set()
    layers = {layer.digest: layer for message in messages for layer in message.layers}
    assert layers["sha256:a"].done == 999
    assert layers["sha256:b"].state == wire.Layer.State.DONE
    assert [image.id for image in messages[-1].images] == [IMAGE.id]
    assert len(messages) < 50


async def test_a_client_that_leaves_cancels_the_pull(tmp_path: Path) -> None:
    daemon = Slow()
    async with (
        serving(daemon, tmp_path / "s") as host,
        grpc.aio.insecure_channel(host.replace("unix://", "unix:")) as channel,
    ):
        call = NodeStub(channel).Pull(REQUEST)
        await call.read()
        call.cancel()
        await asyncio.wait_for(daemon.cancelled.wait(), 10)

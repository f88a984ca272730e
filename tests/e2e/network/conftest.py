from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from phantom_cri.config import NetworkConfig
from phantom_cri.network.builtin import BuiltinNetwork
from tests.e2e.network.world import World

Scenario = Callable[[BuiltinNetwork], Awaitable[None]]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


class Node:
    """Runs scenarios on a driver inside the world's node, as one daemon after another would."""

    def __init__(self, world: World, state: Path) -> None:
        self.world = world
        self.state = state

    def run(
        self,
        scenario: Scenario,
        live: dict[str, tuple[str, ...]] | None = None,
        config: NetworkConfig | None = None,
    ) -> None:
        async def whole() -> None:
            network = BuiltinNetwork(config or NetworkConfig(), self.state)
            try:
                await network.start(live or {})
                await scenario(network)
            finally:
                await network.close()

        self.world.node.call(lambda: asyncio.run(whole()))


@pytest.fixture
def node(world: World, tmp_path: Path) -> Node:
    return Node(world, tmp_path)
